"""INetworkDefinition: the layers as they are added, and the program that they make."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from typing import Any

from tests.targets.tensorrt_standin.api import Enum, Guarded, brief
from tests.targets.tensorrt_standin.layers import Convolution, Layer, Tensor
from tests.targets.tensorrt_standin.program import Node, Port
from tests.targets.tensorrt_standin.shapes import RefusedError, Spec, infer, need
from tests.targets.tensorrt_standin.values import DTYPES, Dims, Weights


class Network(Guarded):
    """`_known`: types and shapes of tensors by id, as far as anyone asked and nothing before them changed since."""

    def _setup(self, builder: Any, flags: int) -> None:
        self._values = {"name": "Unnamed Network 0", "flags": flags, "builder": builder}
        self._layers: list[Layer] = []
        self._inputs: list[Tensor] = []
        self._outputs: list[Tensor] = []
        self._ports: dict[str, Spec] = {}
        self._known: dict[str, Spec] = {}

    def __len__(self) -> int:
        return len(self._layers)

    def __getitem__(self, index: int) -> Layer:
        return self._layers[index]

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._layers)

    def _get_num_layers(self) -> int:
        return len(self._layers)

    def _get_num_inputs(self) -> int:
        return len(self._inputs)

    def _get_num_outputs(self) -> int:
        return len(self._outputs)

    def _get_has_implicit_batch_dimension(self) -> bool:
        return False

    def _do_get_layer(self, index: int) -> Layer:
        return self._layers[index]

    def _do_get_input(self, index: int) -> Tensor:
        return self._inputs[index]

    def _do_get_output(self, index: int) -> Tensor:
        return self._outputs[index]

    def _do_get_flag(self, flag: Enum) -> bool:
        return bool(self._values["flags"] >> flag.value & 1)

    # Building

    def _own(self, where: str, *tensors: Tensor) -> None:
        if any(tensor._network is not self for tensor in tensors):
            raise ValueError(f"{where}: a tensor of another network")

    def _add(self, name: str, inputs: Sequence[Tensor], **values: Any) -> Layer:
        self._own(self._where(), *inputs)
        layer = self._space.new(name, network=self, index=len(self._layers), inputs=inputs, **values)
        self._layers.append(layer)
        return layer

    def _do_add_input(self, name: str, dtype: Enum, shape: Dims) -> Tensor:
        where = self._where("add_input")
        if not name or any(tensor.name == name for tensor in self._inputs):
            raise ValueError(f"{where}: the name {name!r} is empty or taken")
        if dtype.name not in DTYPES or dtype.name in ("BOOL", "INT64"):
            raise ValueError(f"{where}: the stand-in does not model inputs of type {dtype}")
        tensor = self._space.new("ITensor", network=self, layer=None, key=f"input {len(self._inputs)}", name=name)
        self._ports[tensor._id] = Spec((), dtype.name)
        self._reshape_input(tensor, shape)
        self._inputs.append(tensor)
        return tensor

    def _reshape_input(self, tensor: Tensor, shape: Dims) -> None:
        if any(side < 1 and side != -1 for side in shape):
            raise ValueError(f"{self._where('add_input')}: shape {shape}; a dimension is positive, or -1 where it is known only later")
        self._ports[tensor._id] = Spec(tuple(shape), self._ports[tensor._id].dtype)
        self._known.clear()

    def _do_add_convolution_nd(self, input: Tensor, num_output_maps: int, kernel_shape: Dims, kernel: Weights, bias: Weights | None) -> Layer:
        if num_output_maps < 1 or len(kernel_shape) != 2 or min(kernel_shape) < 1:
            raise ValueError(
                f"{self._where('add_convolution_nd')}: {num_output_maps} maps, kernel_shape {kernel_shape}; the stand-in models 2-D ones"
            )
        return self._add("IConvolutionLayer", [input], num_output_maps=num_output_maps, kernel_size_nd=kernel_shape, kernel=kernel, bias=bias)

    def _do_add_activation(self, input: Tensor, type: Enum) -> Layer:
        return self._add("IActivationLayer", [input], type=type)

    def _do_add_elementwise(self, input1: Tensor, input2: Tensor, op: Enum) -> Layer:
        return self._add("IElementWiseLayer", [input1, input2], op=op)

    def _do_add_unary(self, input: Tensor, op: Enum) -> Layer:
        return self._add("IUnaryLayer", [input], op=op)

    def _do_add_pooling_nd(self, input: Tensor, type: Enum, window_size: Dims) -> Layer:
        return self._add("IPoolingLayer", [input], type=type, window_size_nd=window_size)

    def _do_add_resize(self, input: Tensor) -> Layer:
        return self._add("IResizeLayer", [input])

    def _do_add_concatenation(self, inputs: Sequence[Tensor]) -> Layer:
        if not inputs:
            raise ValueError(f"{self._where('add_concatenation')}: no inputs")
        return self._add("IConcatenationLayer", inputs)

    def _do_add_shuffle(self, input: Tensor) -> Layer:
        return self._add("IShuffleLayer", [input])

    def _do_add_slice(self, input: Tensor, start: Dims, shape: Dims, stride: Dims) -> Layer:
        return self._add("ISliceLayer", [input], start=start, shape=shape, stride=stride)

    def _do_add_constant(self, shape: Dims, weights: Weights) -> Layer:
        return self._add("IConstantLayer", [], shape=shape, weights=weights)

    def _do_add_cast(self, input: Tensor, to_type: Enum) -> Layer:
        return self._add("ICastLayer", [input], to_type=to_type)

    def _do_add_identity(self, input: Tensor) -> Layer:
        return self._add("IIdentityLayer", [input])

    def _do_add_quantize(self, input: Tensor, scale: Tensor, output_type: Enum | None = None) -> Layer:
        return self._add("IQuantizeLayer", [input, scale], to_type=self._third("add_quantize", output_type))

    def _do_add_dequantize(self, input: Tensor, scale: Tensor, output_type: Enum | None = None) -> Layer:
        return self._add("IDequantizeLayer", [input, scale], to_type=self._third("add_dequantize", output_type))

    def _third(self, name: str, output_type: Enum | None) -> Enum:
        if output_type is None:  # TensorRT 10 still has these overloads
            raise TypeError(f"{self._where(name)} with two arguments is gone in TensorRT 11; give output_type")
        return output_type

    def _do_mark_output(self, tensor: Tensor) -> None:
        self._own(self._where("mark_output"), tensor)
        if tensor._layer is None or tensor in self._outputs:
            raise ValueError(f"{self._where('mark_output')}: {tensor.name} is an input of the network or marked already")
        self._outputs.append(tensor)

    def _do_unmark_output(self, tensor: Tensor) -> None:
        self._outputs.remove(tensor)

    # What it means

    def _changed(self, layer: Layer) -> None:
        if layer._output._id in self._known:
            self._known.clear()

    def _order(self, wanted: Sequence[Tensor]) -> list[Layer]:
        """Layers that `wanted` needs and that are not known yet, each after its inputs. A stack, as networks are deeper than Python recurses."""
        order: dict[int, Layer] = {}
        open_layers: set[int] = set()
        stack = [tensor._layer for tensor in reversed(wanted)]
        while stack:
            layer = stack[-1]
            if layer is None or layer._index in order or layer._output._id in self._known:
                stack.pop()
                continue
            missing = [source._layer for source in layer._sources if source._layer is not None]
            missing = [other for other in missing if other._index not in order and other._output._id not in self._known]
            if not missing:
                order[layer._index] = layer
                stack.pop()
            elif layer._index in open_layers:
                raise RefusedError(f"{layer.name}: depends on itself")
            else:
                open_layers.add(layer._index)
                stack.extend(reversed(missing))
        return list(order.values())

    def _spec(self, tensor: Tensor) -> Spec:
        for layer in self._order([tensor]):
            self._known[layer._output._id] = infer(layer._node(), [self._lookup(source) for source in layer._sources])
        return self._lookup(tensor)

    def _lookup(self, tensor: Tensor) -> Spec:
        return self._ports[tensor._id] if tensor._layer is None else self._known[tensor._id]

    def _nodes(self) -> list[Node]:
        """Of the layers that the outputs need. Raises RefusedError for anything that TensorRT would not build, dead layers included."""
        self._known.clear()
        need(bool(self._outputs), "the network has no output")
        names = collections.Counter(layer.name for layer in self._layers)
        repeated = [name for name, count in names.items() if count > 1]
        need(not repeated, f"Repeated layer name: {', '.join(repeated)} (layers must have distinct names)")
        tensors = collections.Counter([layer._output.name for layer in self._layers] + [tensor.name for tensor in self._inputs])
        repeated = [name for name, count in tensors.items() if count > 1]
        need(not repeated, f"Repeated tensor name: {', '.join(repeated)} (tensors must have distinct names)")
        for layer in self._layers:
            freed = layer._freed() if isinstance(layer, Convolution) else []
            need(not freed, f"{layer.name}: the array of {', '.join(freed)} was freed before the build; keep a reference to it")
            self._spec(layer._output)
        self._known.clear()
        layers = self._order(self._outputs)
        for layer in layers:
            self._spec(layer._output)
        read = {source._id for layer in layers for source in layer._sources}
        for tensor in self._inputs:
            need(tensor._id in read, f"input {brief(tensor.name)} is read by no layer that an output needs")
        for tensor in self._outputs:
            need(self._spec(tensor).dtype != "INT8", f"output {brief(tensor.name)} is INT8; dequantize it")
        return [layer._node() for layer in layers]

    def _port(self, tensor: Tensor, profiles: Sequence[Any] = ()) -> Port:
        spec = self._spec(tensor)
        sets = [profile._shapes[tensor.name] for profile in profiles if tensor.name in profile._shapes]
        shapes = tuple((tuple(least), tuple(best), tuple(most)) for least, best, most in sets)
        return Port(tensor._id, tensor.name, spec.dtype, spec.shape, shapes)
