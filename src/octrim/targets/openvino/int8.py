"""A quantized network in OpenVINO: the ONNX graph with its pairs, and a detour around a defect.

Where a processor's int8 convolutions take unsigned values (x86 without AMX), OpenVINO stores signed ones with a zero point of 128, and computes a
convolution of a concatenation wrongly: found in 2026.4 with two convolutions, a concatenation and a third convolution (docs/quantization.md).
An operation between the concatenation and its readers keeps them apart: it changes nothing, but OpenVINO does not recognise that.
"""

from __future__ import annotations

import numpy as np
import openvino as ov
from openvino import opset13 as op

from octrim.network.model import Model
from octrim.targets.metadata import export_metadata
from octrim.targets.onnx.graph import onnx_model
from octrim.targets.openvino.core import core


def openvino_int8_model(model: Model, height: int, width: int, batch: int | None = 1, decode: bool = True) -> ov.Model:
    """The OpenVINO graph of a model with scales; shapes, names and metadata as of `openvino_model`. Raises InputError without scales."""
    graph = onnx_model(model, height, width, batch, "int8", decode)
    built = with_plain_concats(core().read_model(graph.SerializeToString()))
    for key, value in (export_metadata(model) | {"precision": "int8"}).items():
        built.set_rt_info(value, ["octrim", key])
    return built


def with_plain_concats(built: ov.Model) -> ov.Model:
    """Insert a PReLU of slope 1, which changes no value, behind every concatenation of maps, in place. Only quantized graphs need it."""
    for node in built.get_ordered_ops():
        if node.get_type_name() == "Concat" and node.get_output_partial_shape(0).rank.get_length() == 4:
            readers = list(node.output(0).get_target_inputs())
            passed = op.prelu(node, op.constant(np.float32(1)))
            for reader in readers:
                reader.replace_source_output(passed.output(0))
    return built
