"""YOLOv5's modules as published, in NumPy and without rows: what a checkpoint computes, and the module tree that it pickles.

Independent of `octrim`: a convolution adds up its taps one after the other, and every module is written down as its authors describe it. `Module`
knows its class name, its children in order, its tensors and its attributes, so that `tree` can hand it to the writer of checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.checkpoints import CheckpointWriter

Array = np.ndarray
EPS = 1e-3


@dataclass
class Module:
    path: str
    forward: Callable[..., Array]
    children: dict[str, Module] = field(default_factory=dict)
    parameters: dict[str, Array | None] = field(default_factory=dict)
    buffers: dict[str, Array] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    fused: bool = False

    def __call__(self, *x: Array) -> Array:
        return self.forward(*x)

    def tree(self, writer: CheckpointWriter) -> Any:
        children = {name: child.tree(writer) for name, child in self.children.items()}
        parameters = {name: None if values is None else writer.parameter(values) for name, values in self.parameters.items()}
        buffers = {name: writer.tensor(values) for name, values in self.buffers.items()}
        made = writer.module(self.path, children, parameters, buffers, **self.state)
        if self.fused:
            # As model.fuse() leaves it: the instance's forward is a bound method of its class, which pickles as a call of getattr.
            if not hasattr(type(made), "forward_fuse"):

                def forward_fuse(_self: Any) -> None:
                    """Named as the method of YOLOv5's Conv."""

                type(made).forward_fuse = forward_fuse
            made.forward = made.forward_fuse
        return made


class Float32:
    """Random numbers that a float32 can hold, so that what is read from a checkpoint is what was written."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def normal(self, *arguments: Any) -> Array:
        return rounded(self.generator.normal(*arguments))

    def uniform(self, *arguments: Any) -> Array:
        return rounded(self.generator.uniform(*arguments))


def rounded(values: Array) -> Array:
    return values.astype(np.float32).astype(np.float64)


class Maker:
    """Makes modules with random tensors. act: of every `Conv`, its class name and its function."""

    def __init__(self, seed: int = 0, act: str = "torch.nn.modules.activation.SiLU", fused: bool = False) -> None:
        self.random = Float32(seed)
        self.act_path, self.fused = act, fused

    def act(self, path: str | None = None) -> Module:
        path = path or self.act_path
        name = path.rpartition(".")[2]
        functions: dict[str, Callable[[Array], Array]] = {
            "SiLU": lambda x: x / (1 + np.exp(-x)),
            "Hardswish": lambda x: x * np.minimum(np.maximum(x + 3, 0), 6) / 6,
            "LeakyReLU": lambda x: np.where(x >= 0, x, 0.1 * x),
            "Identity": lambda x: x,
        }
        return Module(path, functions[name], state={"negative_slope": 0.1} if name == "LeakyReLU" else {})

    def conv2d(self, c1: int, c2: int, k: int = 1, s: int = 1, p: int | None = None, g: int = 1, bias: bool = False) -> Module:
        weight = self.random.normal(0, 1.5 / np.sqrt(c1 // g * k * k), (c2, c1 // g, k, k))
        made = Module("torch.nn.modules.conv.Conv2d", lambda x: x, parameters={"weight": weight})
        made.parameters["bias"] = self.random.normal(0, 0.3, c2) if bias else None
        padding = k // 2 if p is None else p
        made.state = {"kernel_size": (k, k), "stride": (s, s), "padding": (padding, padding), "dilation": (1, 1), "groups": g}
        made.forward = lambda x: taps(x, made.parameters["weight"], made.parameters["bias"], s, padding, g)
        return made

    def norm(self, channels: int) -> Module:
        made = Module("torch.nn.modules.batchnorm.BatchNorm2d", lambda x: x, state={"eps": EPS})
        made.parameters = {"weight": self.random.uniform(0.5, 1.5, channels), "bias": self.random.normal(0, 0.3, channels)}
        made.buffers = {"running_mean": self.random.normal(0, 0.3, channels), "running_var": self.random.uniform(0.5, 1.5, channels)}
        scale = made.parameters["weight"] / np.sqrt(made.buffers["running_var"] + EPS)
        shift = made.parameters["bias"] - scale * made.buffers["running_mean"]
        made.forward = lambda x: x * scale[:, None, None] + shift[:, None, None]
        made.state["scale"], made.state["shift"] = scale.tolist(), shift.tolist()
        return made

    def conv(self, c1: int, c2: int, k: int = 1, s: int = 1, p: int | None = None, g: int = 1, act: bool = True, path: str = "Conv") -> Module:
        conv, norm, act_ = self.conv2d(c1, c2, k, s, p, g), self.norm(c2), self.act(None if act else "torch.nn.modules.linear.Identity")
        if self.fused:  # the arithmetic of fuse_conv_and_bn
            scale, shift = np.asarray(norm.state["scale"]), np.asarray(norm.state["shift"])
            conv.parameters["weight"] = rounded(conv.parameters["weight"] * scale[:, None, None, None])
            conv.parameters["bias"] = rounded(shift)
            return Module(f"models.common.{path}", lambda x: act_(conv(x)), {"conv": conv, "act": act_}, fused=True)
        return Module(f"models.common.{path}", lambda x: act_(norm(conv(x))), {"conv": conv, "bn": norm, "act": act_})

    def dwconv(self, c1: int, c2: int, k: int = 1, s: int = 1, act: bool = True) -> Module:
        return self.conv(c1, c2, k, s, g=int(np.gcd(c1, c2)), act=act, path="DWConv")

    def focus(self, c1: int, c2: int, k: int) -> Module:
        conv = self.conv(4 * c1, c2, k)

        def forward(x: Array) -> Array:
            parts = [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]]
            return conv(np.concatenate(parts, 1))

        return Module("models.common.Focus", forward, {"conv": conv})

    def bottleneck(self, c1: int, hidden: int, c2: int, shortcut: bool, path: str = "Bottleneck") -> Module:
        cv1, cv2 = self.conv(c1, hidden), self.conv(hidden, c2, 3)
        add = shortcut and c1 == c2
        return Module(f"models.common.{path}", lambda x: x + cv2(cv1(x)) if add else cv2(cv1(x)), {"cv1": cv1, "cv2": cv2}, state={"add": add})

    def c3(self, c1: int, widths: Sequence[int], c2: int, inner: Sequence[Module], path: str = "C3") -> Module:
        """widths: of cv1, of the last module within, and of cv2."""
        cv1, cv2, cv3 = self.conv(c1, widths[0]), self.conv(c1, widths[2]), self.conv(widths[1] + widths[2], c2)
        m = sequential(inner)
        return Module(f"models.common.{path}", lambda x: cv3(np.concatenate([m(cv1(x)), cv2(x)], 1)), {"cv1": cv1, "cv2": cv2, "cv3": cv3, "m": m})

    def csp(self, c1: int, c2: int, repeats: int, shortcut: bool) -> Module:
        hidden = c2 // 2
        cv1, cv2, cv3, cv4 = self.conv(c1, hidden), self.conv2d(c1, hidden), self.conv2d(hidden, hidden), self.conv(2 * hidden, c2)
        norm, act = self.norm(2 * hidden), self.act("torch.nn.modules.activation.LeakyReLU")
        m = sequential([self.bottleneck(hidden, hidden, hidden, shortcut) for _ in range(repeats)])

        def forward(x: Array) -> Array:
            return cv4(act(norm(np.concatenate([cv3(m(cv1(x))), cv2(x)], 1))))

        return Module("models.common.BottleneckCSP", forward, {"cv1": cv1, "cv2": cv2, "cv3": cv3, "cv4": cv4, "bn": norm, "act": act, "m": m})

    def ghost_conv(self, c1: int, c2: int, k: int = 1, s: int = 1, act: bool = True) -> Module:
        cv1, cv2 = self.conv(c1, c2 // 2, k, s, act=act), self.conv(c2 // 2, c2 // 2, 5, g=c2 // 2, act=act)

        def forward(x: Array) -> Array:
            y = cv1(x)
            return np.concatenate([y, cv2(y)], 1)

        return Module("models.common.GhostConv", forward, {"cv1": cv1, "cv2": cv2})

    def ghost_bottleneck(self, c1: int, c2: int, k: int = 3, s: int = 1) -> Module:
        half, same = c2 // 2, self.act("torch.nn.modules.linear.Identity")
        middle = self.dwconv(half, half, k, s, act=False) if s == 2 else same
        conv = sequential([self.ghost_conv(c1, half), middle, self.ghost_conv(half, c2, act=False)])
        shortcut = sequential([self.dwconv(c1, c1, k, s, act=False), self.conv(c1, c2, act=False)]) if s == 2 else same
        return Module("models.common.GhostBottleneck", lambda x: conv(x) + shortcut(x), {"conv": conv, "shortcut": shortcut})

    def spp(self, c1: int, c2: int, windows: Sequence[int], hidden: int | None = None) -> Module:
        hidden = hidden or c1 // 2
        cv1, cv2, pools = self.conv(c1, hidden), self.conv(hidden * (len(windows) + 1), c2), [maxpool(k, 1, k // 2) for k in windows]

        def forward(x: Array) -> Array:
            y = cv1(x)
            return cv2(np.concatenate([y, *(pool(y) for pool in pools)], 1))

        return Module("models.common.SPP", forward, {"cv1": cv1, "cv2": cv2, "m": sequential(pools, "ModuleList")})

    def sppf(self, c1: int, hidden: int, c2: int, k: int = 5, path: str = "SPPF") -> Module:
        cv1, cv2, pool = self.conv(c1, hidden), self.conv(4 * hidden, c2), maxpool(k, 1, k // 2)

        def forward(x: Array) -> Array:
            maps = [cv1(x)]
            maps += [pool(maps[-1]) for _ in range(1)]
            maps += [pool(maps[-1]) for _ in range(1)]
            maps += [pool(maps[-1]) for _ in range(1)]
            return cv2(np.concatenate(maps, 1))

        return Module(f"models.common.{path}", forward, {"cv1": cv1, "cv2": cv2, "m": pool})


def taps(x: Array, weight: Array, bias: Array | None, stride: int, padding: int, groups: int) -> Array:
    """Cross-correlation, tap by tap."""
    kernel, width, height = weight.shape[-1], x.shape[3] + 2 * padding, x.shape[2] + 2 * padding
    padded = np.zeros((*x.shape[:2], height, width))
    padded[:, :, padding : padding + x.shape[2], padding : padding + x.shape[3]] = x
    lines, columns = (height - kernel) // stride + 1, (width - kernel) // stride + 1
    result = np.zeros((len(x), len(weight), lines, columns))
    out, into = len(weight) // groups, weight.shape[1]
    for i in range(kernel):
        for j in range(kernel):
            seen = padded[:, :, i : i + stride * (lines - 1) + 1 : stride, j : j + stride * (columns - 1) + 1 : stride]
            for g in range(groups):
                result[:, g * out : (g + 1) * out] += np.einsum(
                    "oc,nchw->nohw", weight[g * out : (g + 1) * out, :, i, j], seen[:, g * into : (g + 1) * into]
                )
    return result if bias is None else result + np.asarray(bias)[:, None, None]


def maxpool(kernel: int, stride: int, padding: int) -> Module:
    def forward(x: Array) -> Array:
        padded = np.full((*x.shape[:2], x.shape[2] + 2 * padding, x.shape[3] + 2 * padding), -np.inf)
        padded[:, :, padding : padding + x.shape[2], padding : padding + x.shape[3]] = x
        lines, columns = ((side - kernel) // stride + 1 for side in padded.shape[2:])
        result = np.full((*x.shape[:2], lines, columns), -np.inf)
        for i in range(lines):
            for j in range(columns):
                result[:, :, i, j] = padded[:, :, i * stride : i * stride + kernel, j * stride : j * stride + kernel].max((2, 3))
        return result

    return Module("torch.nn.modules.pooling.MaxPool2d", forward, state={"kernel_size": kernel, "stride": stride, "padding": padding})


def zero_pad(*sides: int) -> Module:
    """PyTorch's `ZeroPad2d`. sides: zeros to the left, right, top and bottom."""
    left, right, top, bottom = sides
    return Module(
        "torch.nn.modules.padding.ZeroPad2d",
        lambda x: np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right))),
        state={"padding": sides, "value": 0.0},
    )


def upsample(factor: int) -> Module:
    return Module(
        "torch.nn.modules.upsampling.Upsample", lambda x: np.kron(x, np.ones((1, 1, factor, factor))), state={"scale_factor": float(factor)}
    )


def concat() -> Module:
    return Module("models.common.Concat", lambda *x: np.concatenate(x, 1), state={"d": 1})


def sequential(modules: Sequence[Module], kind: str = "Sequential") -> Module:
    def forward(x: Array) -> Array:
        for module in modules:
            x = module(x)
        return x

    return Module(f"torch.nn.modules.container.{kind}", forward, {str(index): module for index, module in enumerate(modules)})


@dataclass
class Published:
    """A whole network: its layers as (from, module), what Detect reads, and the layout that travels with it.

    anchors: pixels, per level; strides: pixels per cell.
    """

    maker: Maker
    layers: list[tuple[int | list[int], Module]]
    levels: list[int]
    layout: dict[str, Any]
    channels: list[int]
    strides: tuple[int, ...]
    anchors: tuple[tuple[tuple[float, float], ...], ...]
    classes: int = 2
    more: int = 0  # values per box beside corners, objectness and classes

    def __post_init__(self) -> None:
        outputs = len(self.anchors[0]) * (5 + self.classes + self.more)
        self.heads = [self.maker.conv2d(channels, outputs, bias=True) for channels in self.channels]

    def __call__(self, x: Array) -> list[Array]:
        """Logits of every level."""
        outputs: list[Array] = []
        for source, module in self.layers:
            sources = source if isinstance(source, list) else [source]
            x = module(*(x if number == -1 else outputs[number] for number in sources))
            outputs.append(x)
        return [head(outputs[level]) for head, level in zip(self.heads, self.levels, strict=True)]

    def tree(self, writer: CheckpointWriter, root: str = "models.yolo.Model") -> Any:
        stride = writer.tensor(np.asarray(self.strides), dtype="f4")
        detect = Module("models.yolo.Detect", lambda x: x, {"m": sequential(self.heads, "ModuleList")}).tree(writer)
        units = np.asarray(self.anchors) / np.asarray(self.strides)[:, None, None]
        detect.__dict__.update(nc=self.classes, stride=stride)
        detect._buffers["anchors"] = writer.tensor(units)
        children = {str(index): module.tree(writer) for index, (_, module) in enumerate(self.layers)} | {str(len(self.layers)): detect}
        sequence = writer.module("torch.nn.modules.container.Sequential", children)
        names = [f"class{index}" for index in range(self.classes)]
        return writer.module(root, {"model": sequence}, yaml={**self.layout, "nc": self.classes}, names=names, stride=stride)
