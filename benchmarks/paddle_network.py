"""Is the walked Paddle network as fast as the same layers written by hand?

    python benchmarks/paddle_network.py [--side 320 --batch 8 --rounds 20]

The hand-written network has a class per block, as YOLOv5 ports have. Both get the same weights' shapes and the same input; measured are
a forward pass in evaluation mode, and forward plus backward in training mode.
"""

from __future__ import annotations

import argparse

import numpy as np

from interleave import interleaved, table
from octrim.backends.paddle import PaddleNetwork, paddle
from octrim.network.initialize import fresh_model

nn = paddle.nn


class Conv(nn.Layer):
    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, p: int | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2D(c1, c2, k, s, k // 2 if p is None else p, bias_attr=False)
        self.bn = nn.BatchNorm2D(c2, momentum=0.97, epsilon=1e-3)
        self.act = nn.Silu()

    def forward(self, x):
        return self.act(self.bn(self.conv(x)))


class Bottleneck(nn.Layer):
    def __init__(self, c: int, shortcut: bool) -> None:
        super().__init__()
        self.cv1, self.cv2, self.shortcut = Conv(c, c), Conv(c, c, 3), shortcut

    def forward(self, x):
        y = self.cv2(self.cv1(x))
        return x + y if self.shortcut else y


class C3(nn.Layer):
    def __init__(self, c1: int, c2: int, n: int, shortcut: bool = True) -> None:
        super().__init__()
        h = c2 // 2
        self.cv1, self.cv2, self.cv3 = Conv(c1, h), Conv(c1, h), Conv(2 * h, c2)
        self.m = nn.Sequential(*(Bottleneck(h, shortcut) for _ in range(n)))

    def forward(self, x):
        return self.cv3(paddle.concat([self.m(self.cv1(x)), self.cv2(x)], 1))


class SPPF(nn.Layer):
    def __init__(self, c1: int, c2: int) -> None:
        super().__init__()
        self.cv1, self.cv2, self.pool = Conv(c1, c1 // 2), Conv(2 * c1, c2), nn.MaxPool2D(5, 1, 2)

    def forward(self, x):
        x = self.cv1(x)
        y = self.pool(x)
        z = self.pool(y)
        return self.cv2(paddle.concat([x, y, z, self.pool(z)], 1))


class HandWritten(nn.Layer):
    """yolov5n with 80 classes, layer by layer."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.LayerList(
            [Conv(3, 16, 6, 2, 2), Conv(16, 32, 3, 2), C3(32, 32, 1), Conv(32, 64, 3, 2), C3(64, 64, 2), Conv(64, 128, 3, 2), C3(128, 128, 3)]
            + [Conv(128, 256, 3, 2), C3(256, 256, 1), SPPF(256, 256)]
        )
        self.l10, self.l13, self.l14 = Conv(256, 128), C3(256, 128, 1, False), Conv(128, 64)
        self.l17, self.l18, self.l20 = C3(128, 64, 1, False), Conv(64, 64, 3, 2), C3(128, 128, 1, False)
        self.l21, self.l23, self.up = Conv(128, 128, 3, 2), C3(256, 256, 1, False), nn.Upsample(scale_factor=2, mode="nearest")
        self.heads = nn.LayerList([nn.Conv2D(c, 255, 1) for c in (64, 128, 256)])

    def forward(self, x):
        outputs = []
        for layer in self.backbone:
            x = layer(x)
            outputs.append(x)
        p5 = self.l10(x)
        x = self.l13(paddle.concat([self.up(p5), outputs[6]], 1))
        p4 = self.l14(x)
        p3 = self.l17(paddle.concat([self.up(p4), outputs[4]], 1))
        m4 = self.l20(paddle.concat([self.l18(p3), p4], 1))
        m5 = self.l23(paddle.concat([self.l21(m4), p5], 1))
        return [head(m) for head, m in zip(self.heads, (p3, m4, m5), strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=320)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    walked, written = PaddleNetwork(fresh_model("yolov5n")), HandWritten()
    sizes = [sum(int(p.size) for p in layer.parameters() if not p.stop_gradient) for layer in (walked, written)]
    assert sizes[0] == sizes[1], sizes
    images = paddle.to_tensor(np.random.default_rng(0).random((options.batch, 3, options.side, options.side), np.float32))
    print(f"Paddle {paddle.__version__}, yolov5n, batch {options.batch}, {options.side} px, {sizes[0]:,} parameters each")

    def forward(layer):
        with paddle.no_grad():
            layer(images)

    def step(layer):
        paddle.add_n([head.mean() for head in layer(images)]).backward()
        layer.clear_gradients()

    for mode, run in (("evaluation, forward", forward), ("training, forward and backward", step)):
        for layer in (walked, written):
            layer.train() if "training" in mode else layer.eval()
        print(f"\n{mode}")
        table(interleaved({"by hand": lambda: run(written), "walked table": lambda: run(walked)}, options.rounds), "by hand")  # noqa: B023


if __name__ == "__main__":
    main()
