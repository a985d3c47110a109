"""ITensor and the layers: what they remember, and how it becomes a node of a program."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from tests.targets.tensorrt_standin.api import Enum, Guarded
from tests.targets.tensorrt_standin.program import Node
from tests.targets.tensorrt_standin.values import MAX_DIMS, Dims, Permutation, Weights


class Tensor(Guarded):
    """dtype and shape follow from the layers before it, as they are set at the time of asking."""

    _network: Any
    _layer: Layer | None
    _id: str

    def _setup(self, network: Any, layer: Layer | None, key: str, name: str) -> None:
        self._network, self._layer, self._id = network, layer, key
        self._values = {"name": name, "allowed_formats": (1 << len(self._space.names["TensorFormat"].__members__)) - 1}

    def _get_dtype(self) -> Enum:
        return self._space.names["DataType"].__members__[self._network._spec(self).dtype]

    def _set_dtype(self, value: Enum) -> None:
        raise ValueError(f"{self._where('dtype')}: a strongly typed network infers types; cast instead")

    def _get_shape(self) -> Dims:
        return self._space.names["Dims"](self._network._spec(self).shape)

    def _set_shape(self, value: Dims) -> None:
        if self._layer is not None:
            raise ValueError(f"{self._where('shape')}: only the shape of a network input can be set")
        self._network._reshape_input(self, value)

    def _set_dynamic_range(self, value: Any) -> None:
        raise ValueError(f"{self._where('dynamic_range')}: not in a strongly typed network; use Q/DQ")

    def _get_is_network_input(self) -> bool:
        return self._layer is None

    def _get_is_network_output(self) -> bool:
        return self in self._network._outputs

    def _get_is_execution_tensor(self) -> bool:
        return True

    def _get_location(self) -> Enum:
        return self._space.names["TensorLocation"].DEVICE


class Layer(Guarded):
    """`_kind`: its LayerType. `_defaults`: of its properties, where TensorRT documents them. Others are absent until they are set."""

    _kind: ClassVar[str] = ""
    _defaults: ClassVar[dict[str, Any]] = {}
    _setting: ClassVar[tuple[str, ...]] = ()
    """Properties that are part of the node."""

    def _setup(self, *_: Any, network: Any, index: int, inputs: Sequence[Tensor], **values: Any) -> None:
        self._network, self._index = network, index
        self._sources = list(inputs)
        title = f"(Unnamed Layer* {index}) [{self._kind.title()}]"
        self._values: dict[str, Any] = {"name": title} | {key: self._typed_default(key, value) for key, value in self._defaults.items()} | values
        self._output = self._space.new("ITensor", network=network, layer=self, key=f"{index}", name=f"{title}_output")

    def _typed_default(self, key: str, value: Any) -> Any:
        kind = (self._facts.properties[key][1] or "").removeprefix("trt.")
        made = self._space.names.get(kind)
        if isinstance(value, str) and made is not None and issubclass(made, Enum):
            return made.__members__[value]
        return made(value) if made is not None and isinstance(value, tuple) else value

    def _write(self, name: str, value: Any) -> None:
        super()._write(name, value)
        self._network._changed(self)

    def _node(self) -> Node:
        attributes = {key: plain(self._values[key]) for key in self._setting if key in self._values}
        return Node(self._kind, self._values["name"], tuple(x._id for x in self._sources), self._output._id, attributes)

    def _get_type(self) -> Enum:
        return self._space.names["LayerType"].__members__[self._kind]

    def _get_num_inputs(self) -> int:
        return len(self._sources)

    def _get_num_outputs(self) -> int:
        return 1

    def _do_get_input(self, index: int) -> Tensor | None:
        return self._sources[index] if 0 <= index < len(self._sources) else None

    def _do_get_output(self, index: int) -> Tensor | None:
        return self._output if index == 0 else None

    def _do_get_output_type(self, index: int) -> Enum:
        return self._output.dtype

    def _do_set_input(self, index: int, tensor: Tensor) -> None:
        if not 0 <= index < len(self._sources):
            raise ValueError(f"{self._where('set_input')}: the stand-in does not model input {index} of {len(self._sources)}")
        self._set_source(index, tensor)

    def _set_source(self, index: int, tensor: Tensor) -> None:
        self._network._own(self._where("set_input"), tensor)
        self._sources[index:] = [tensor, *self._sources[index + 1 :]]
        self._network._changed(self)

    def _set_precision(self, value: Enum) -> None:
        raise ValueError(f"{self._where('precision')}: not in a strongly typed network; cast instead")

    def _do_set_output_type(self, index: int, dtype: Enum) -> None:
        raise ValueError(f"{self._where('set_output_type')}: not in a strongly typed network; cast instead")


def plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.name
    return list(value) if isinstance(value, (Dims, Permutation)) else value


class _Windowed(Layer):
    def _set_padding_nd(self, value: Dims) -> None:
        self._values |= {"padding_nd": value, "pre_padding": value, "post_padding": value}


_WINDOW = {"stride_nd": (1, 1), "padding_nd": (0, 0), "pre_padding": (0, 0), "post_padding": (0, 0), "padding_mode": "EXPLICIT_ROUND_DOWN"}


class Convolution(_Windowed):
    """`_borrowed`: arrays that a property was set to; nothing but the caller keeps them alive."""

    _kind = "CONVOLUTION"
    _defaults: ClassVar[dict[str, Any]] = _WINDOW | {"dilation_nd": (1, 1), "num_groups": 1}
    _setting = ("num_output_maps", "kernel_size_nd", "stride_nd", "pre_padding", "post_padding", "padding_mode", "dilation_nd", "num_groups")

    def _setup(self, *, kernel: Weights, bias: Weights | None, **values: Any) -> None:
        self._kernel, self._bias = kernel, bias
        self._borrowed: dict[str, weakref.ref[np.ndarray]] = {}
        super()._setup(**values)

    def _get_kernel(self) -> np.ndarray:
        return self._kernel._data

    def _get_bias(self) -> np.ndarray | None:
        return None if self._bias is None else self._bias._data

    def _set_kernel(self, value: Weights) -> None:
        self._kernel = self._lent("kernel", value)

    def _set_bias(self, value: Weights) -> None:
        self._bias = self._lent("bias", value)

    def _lent(self, name: str, weights: Weights) -> Weights:
        self._borrowed.pop(name, None)
        if weights._source is not None:
            self._borrowed[name] = weakref.ref(weights._source)
            weights._source = None
        return weights

    def _freed(self) -> list[str]:
        """Properties whose array is gone."""
        return [name for name, array in self._borrowed.items() if array() is None]

    def _do_set_input(self, index: int, tensor: Tensor) -> None:
        if index not in (0, 1):
            raise ValueError(f"{self._where('set_input')}: the stand-in models inputs 0 and 1 (the kernel), not {index}")
        self._set_source(index, tensor)

    def _node(self) -> Node:
        node = super()._node()
        for name, weights in (("kernel", self._kernel), ("bias", self._bias)):
            node.weights[name] = weights._data if weights is not None else np.empty(0, np.float32)
            node.attributes[f"{name}_type"] = weights._type.name if weights is not None else ""
        return node


class Pooling(_Windowed):
    _kind = "POOLING"
    _defaults: ClassVar[dict[str, Any]] = _WINDOW
    _setting = ("type", "window_size_nd", "stride_nd", "pre_padding", "post_padding", "padding_mode")
    _get_type = None  # type: ignore[assignment]  # PoolingType, a plain value


class Activation(Layer):
    _kind = "ACTIVATION"
    _setting = ("type", "alpha", "beta")
    _get_type = None  # type: ignore[assignment]


class ElementWise(Layer):
    _kind = "ELEMENTWISE"
    _setting = ("op",)


class Unary(Layer):
    _kind = "UNARY"
    _setting = ("op",)


class Resize(Layer):
    _kind = "RESIZE"
    _defaults: ClassVar[dict[str, Any]] = {"resize_mode": "NEAREST", "coordinate_transformation": "ASYMMETRIC", "nearest_rounding": "FLOOR"}
    _setting = ("resize_mode", "coordinate_transformation", "nearest_rounding", "scales")

    def _set_shape(self, value: Dims) -> None:
        raise NotImplementedError(f"{self._where('shape')}: the stand-in models scales only")


class Concatenation(Layer):
    _kind = "CONCATENATION"
    _setting = ("axis",)

    def _get_axis(self) -> int:
        return self._values.get("axis", max(len(self._sources[0].shape) - 3, 0))


_IDENTITY = tuple(range(MAX_DIMS))


class Shuffle(Layer):
    _kind = "SHUFFLE"
    _defaults: ClassVar[dict[str, Any]] = {"first_transpose": _IDENTITY, "second_transpose": _IDENTITY, "zero_is_placeholder": True}
    _setting = ("first_transpose", "reshape_dims", "second_transpose", "zero_is_placeholder")


class Slice(Layer):
    _kind = "SLICE"
    _defaults: ClassVar[dict[str, Any]] = {"mode": "STRICT_BOUNDS"}
    _setting = ("start", "shape", "stride", "axes", "mode")


class Constant(Layer):
    _kind = "CONSTANT"
    _setting = ("shape",)

    def _setup(self, *, weights: Weights, **values: Any) -> None:
        self._weights = weights
        super()._setup(**values)

    def _get_weights(self) -> np.ndarray:
        return self._weights._data

    def _set_weights(self, value: Weights) -> None:
        raise NotImplementedError(f"{self._where('weights')}: the stand-in does not model changing a constant")

    def _node(self) -> Node:
        node = super()._node()
        node.weights["weights"] = self._weights._data
        node.attributes["type"] = self._weights._type.name
        return node


class Cast(Layer):
    _kind = "CAST"
    _setting = ("to_type",)


class Identity(Layer):
    _kind = "IDENTITY"


class Quantize(Layer):
    _kind = "QUANTIZE"
    _setting = ("to_type", "axis")


class Dequantize(Layer):
    _kind = "DEQUANTIZE"
    _setting = ("to_type", "axis")


LAYERS: dict[str, type[Layer]] = {
    "ILayer": Layer,
    "IConvolutionLayer": Convolution,
    "IPoolingLayer": Pooling,
    "IActivationLayer": Activation,
    "IElementWiseLayer": ElementWise,
    "IUnaryLayer": Unary,
    "IResizeLayer": Resize,
    "IConcatenationLayer": Concatenation,
    "IShuffleLayer": Shuffle,
    "ISliceLayer": Slice,
    "IConstantLayer": Constant,
    "ICastLayer": Cast,
    "IIdentityLayer": Identity,
    "IQuantizeLayer": Quantize,
    "IDequantizeLayer": Dequantize,
}
