"""Constants by which graphs turn Detect's logits into boxes; every target shares them."""

from __future__ import annotations

import numpy as np

from octrim.network.rows import Network


def level_constants(network: Network, level: int, height: int, width: int) -> tuple[np.float32, np.ndarray, np.ndarray]:
    """The constants that turn the sigmoids s of one level into boxes: xy = s * scale + offset, wh = s * s * size.

    scale: scalar; offset: `[1, 1, 2, cells]`; size: `[1, anchors, 2, 1]`; float32, for s of `[batch, anchors, 2, cells]`.
    """
    stride = network.strides[level]
    cells = np.stack(np.meshgrid(np.arange(width), np.arange(height))).reshape(1, 1, 2, height * width)
    size = 4 * np.asarray(network.anchors[level])[None, :, :, None]
    return np.float32(2 * stride), ((cells - 0.5) * stride).astype(np.float32), size.astype(np.float32)
