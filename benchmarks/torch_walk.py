"""The table walked into PyTorch, the peer of several benchmarks. Never a dependency of OcTrim: `pip install torch==2.13.0`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from octrim.network.folding import folded_conv
from octrim.network.model import Model
from octrim.network.rows import Row


class TorchOps:
    """`Ops` over PyTorch tensors, all but the convolution, for SiLU networks. Detect gives its logits: decoding is left out in PyTorch's favour."""

    def add(self, row: Row, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a + b

    def concat(self, row: Row, xs: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.cat(list(xs), 1)

    def maxpool(self, row: Row, x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(x, row.kernel, row.stride, row.padding)

    def upsample(self, row: Row, x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, scale_factor=row.stride, mode="nearest")

    def detect(self, row: Row, heads: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return list(heads)


class FoldedOps(TorchOps):
    """Inference: batch norm folded, as YOLOv5 does before it."""

    def __init__(self, model: Model, device: str = "cpu", dtype: torch.dtype = torch.float32, layout: torch.memory_format = torch.contiguous_format):
        self.weights = {}
        for row in model.network.convs:
            weight, bias = (torch.from_numpy(part).to(device, dtype) for part in folded_conv(model, row))
            self.weights[row.name] = (weight.contiguous(memory_format=layout), bias)

    def conv(self, row: Row, x: torch.Tensor) -> torch.Tensor:
        y = F.conv2d(x, *self.weights[row.name], row.stride, row.padding, 1, row.groups)
        return F.silu(y, inplace=True) if row.activation else y
