"""The network in PaddlePaddle: it is trained in this form, and deployables are compared with it."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from octrim.backends.onednn.runs import Programs, TrainingPass
from octrim.errors import InputError
from octrim.machine import set_paddle_environment
from octrim.network.model import Model
from octrim.network.rows import BATCH_NORM_EPS, INPUTS, Network, Row, walk


def _import_paddle() -> Any:
    """Import Paddle with the environment that makes it fast, and without its start-up chatter."""
    set_paddle_environment()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            import paddle
    except ImportError as error:
        raise InputError(f"PaddlePaddle cannot be imported ({error}); install it with: pip install 'octrim[cpu]'") from None
    return paddle


paddle = _import_paddle()
nn, F = paddle.nn, paddle.nn.functional
_THREADS = int(os.environ["OMP_NUM_THREADS"])  # importing Paddle has turned any value into a whole number
_THREADS_LOCK = threading.RLock()
_threads_set: list[int] = []  # thread numbers of the nested `processor_threads` blocks that the lock's owner is in
warnings.filterwarnings("ignore", "When training, we now always track global mean")  # Paddle warns at every change of mode


@contextlib.contextmanager
def processor_threads(number: int | None) -> Iterator[None]:
    """Let Paddle compute with `number` threads (None: what it started with) within the block, and as before after it.

    Paddle keeps part of the setting per thread and part per process, so one thread at a time is in such a block; others wait. Blocks may be nested.
    Paddle Inference leaves the number at 1 after every run: a training in the same process would go on at half its speed, with other last digits.
    """
    with _THREADS_LOCK:
        _threads_set.append(number or _THREADS)
        paddle.base.core.set_num_threads(_threads_set[-1])
        try:
            yield
        finally:
            _threads_set.pop()
            paddle.base.core.set_num_threads(_threads_set[-1] if _threads_set else _THREADS)


def gpus() -> int:
    """Number of GPUs that this Paddle can use."""
    return paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0


def use_device(device: str) -> None:
    """Let everything that Paddle does in this process from now on run on the device "cpu" or "gpu".

    "auto" leaves the device as it is; Paddle starts on the GPU where it has one. Raises InputError where Paddle has no GPU and "gpu" is asked for.
    """
    if device == "gpu" and not gpus():
        raise InputError("device is gpu; this Paddle has none (pip install paddlepaddle-gpu, and a driver)")
    if device != "auto":
        paddle.set_device(device)


class ConvNorm(nn.Layer):
    """Convolution, then batch norm where the row has it. Holds the parameters of one row; `PaddleNetwork.conv` applies them."""

    def __init__(self, row: Row, inputs: int) -> None:
        super().__init__()
        bias = None if row.bias else False
        self.conv = nn.Conv2D(inputs, row.channels, row.kernel, row.stride, row.padding, groups=row.groups, bias_attr=bias)
        # PyTorch's momentum, 0.03, is the weight of the new value; Paddle's, 0.97, that of the old one.
        self.bn = nn.BatchNorm2D(row.channels, momentum=0.97, epsilon=BATCH_NORM_EPS) if row.norm else None

    def forward(self, x: Any) -> Any:
        x = self.conv(x)
        return x if self.bn is None else self.bn(x)


ACTIVATIONS: Mapping[str, Any] = {
    "silu": F.swish,  # swish is silu; the gradient of Paddle's own silu is nan below -88, where exp(-x) overflows, and YOLOv5n's stem has such values
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "hardswish": F.hardswish,
    "mish": F.mish,
    "sigmoid": F.sigmoid,
}


def activate(row: Row, x: Any) -> Any:
    if row.activation is None:
        return x
    return F.leaky_relu(x, row.slope) if row.activation_name == "leaky_relu" else ACTIVATIONS[row.activation_name](x)


class PaddleNetwork(nn.Layer):
    """The network as a Paddle layer, which is also the `Ops` that walk its table.

        network = PaddleNetwork(model)
        heads = network(images)

    images: float `[batch, 3, height, width]`, 0..1, sides multiples of the stride. A call returns per level the logits
    `[batch, anchors x (5 + classes), height, width]`. The layer starts in evaluation mode.

    In training mode on a processor oneDNN runs the table (`octrim.backends.onednn.program`), always in float32, unless `compiled` is False, the
    images need a gradient, a layer has a forward hook or a subclass replaces an op. Only one backward pass per call is possible: Paddle 3.3 itself
    crashes at the second one through any PyLayer, with `retain_graph` or without. A network without batch norm (`folded`) computes the same in both
    modes, and oneDNN runs it in both.
    """

    compiled = True

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.network: Network = model.network
        for row in model.network.convs:
            self.add_sublayer(row.name, ConvNorm(row, model.tensors[row.weight_name].shape[1] * row.groups))
        for name, parameter in self.named_tensors().items():
            parameter.set_value(model.tensors[name])
        self._programs = Programs(model.network)
        self._normed = any(row.norm for row in model.network.convs)
        self._features: dict[str, Any] = dict.fromkeys(model.network.rows[-1].inputs)
        self._tensors: _InVector | None = None
        self.eval()

    def named_tensors(self) -> dict[str, Any]:
        """Parameters and batch-norm statistics by their names in the model file; the values are the live Paddle tensors."""
        tensors: dict[str, Any] = {}
        for row in self.network.convs:
            layer = self._sub_layers[row.name]
            tensors[row.weight_name] = layer.conv.weight
            if row.bias:
                tensors[f"{row.name}.bias"] = layer.conv.bias
            if row.norm:
                bn = layer.bn
                tensors |= {f"{row.name}.bn.weight": bn.weight, f"{row.name}.bn.bias": bn.bias}
                tensors |= {f"{row.name}.bn.running_mean": bn._mean, f"{row.name}.bn.running_var": bn._variance}
        return tensors

    def moved(self, vector: Any, slices: Mapping[str, slice], size: int) -> Any:
        """Take note that all parameters and statistics lie in a flat vector now. Returns the leaf that receives the gradient of all parameters as one
        vector where oneDNN computes it; otherwise the parameters receive their own.

        vector: float32 `[size + statistics]`, which keeps its memory. slices: the part of every tensor; those of the parameters are its first `size`
        numbers, and the statistics follow row by row, mean and variance.
        """
        self._tensors = _InVector(self, vector, slices, size)
        return self._tensors.leaf

    def forward(self, images: Any) -> list[Any]:
        return self._run(images, features=False)[0]

    def with_features(self, images: Any) -> tuple[list[Any], list[Any]]:
        """The logits, and per level the map `[batch, channels, height, width]` that Detect's convolution reads."""
        return self._run(images, features=True)

    def _run(self, images: Any, features: bool) -> tuple[list[Any], list[Any]]:
        if (self.training or not self._normed) and self.compiled and not self._watched():
            outputs = _compiled(self, self._programs, images, features)
            if outputs is not None:
                levels = len(self.network.heads)
                return outputs[:levels], outputs[levels:]
        heads = walk(self.network, self, images)
        found = list(self._features.values()) if features else []
        self._features = dict.fromkeys(self._features)
        return heads, found

    def _watched(self) -> bool:
        """Whether a layer has a hook or a subclass has replaced an op, so that every row must run by itself."""
        rows = self._sub_layers.values()
        hooked = any(one._forward_pre_hooks or one._forward_post_hooks for layer in rows for one in (layer, *layer._sub_layers.values()))
        return hooked or any(getattr(type(self), op) is not getattr(PaddleNetwork, op) for op in INPUTS if op != "image")

    def conv(self, row: Row, x: Any) -> Any:
        if row.name in self._features:
            self._features[row.name] = x
        return activate(row, self._sub_layers[row.name](x))

    def add(self, row: Row, a: Any, b: Any) -> Any:
        return a + b

    def concat(self, row: Row, xs: Sequence[Any]) -> Any:
        return paddle.concat(list(xs), axis=1)

    def maxpool(self, row: Row, x: Any) -> Any:
        return F.max_pool2d(x, row.kernel, row.stride, row.padding)

    def upsample(self, row: Row, x: Any) -> Any:
        return F.interpolate(x, scale_factor=row.stride, mode="nearest")

    def detect(self, row: Row, heads: Sequence[Any]) -> list[Any]:
        return list(heads)


class _Separate:
    """The tensors of a network, each of which has memory and a gradient of its own, as a compiled step reads and writes them.

    leaves: tensors whose gradients Paddle asks for. parameters: by name.
    """

    def __init__(self, layer: PaddleNetwork) -> None:
        self._all = layer.named_tensors()
        self._norms = [layer._sub_layers[row.name].bn for row in layer.network.convs if row.norm]
        self.parameters = {name: tensor for name, tensor in self._all.items() if ".running_" not in name}
        self.leaves = tuple(self.parameters.values())

    def usable(self) -> bool:
        """Whether oneDNN can read them."""
        return all(tensor.dtype == paddle.float32 and tensor.place.is_cpu_place() for tensor in self._all.values())

    def addresses(self) -> dict[str, int]:
        return {name: tensor.data_ptr() for name, tensor in self.parameters.items()}

    def gradients(self) -> tuple[dict[str, int], Callable[[], Any]]:
        """Room for the gradients, by its addresses, and a function that returns them, one for each leaf, once they are there."""
        made = {name: paddle.empty_like(tensor) for name, tensor in self.parameters.items()}

        def found() -> tuple[Any, ...]:
            # Room of frozen parameters is held until now, because oneDNN may write their gradients, too.
            return tuple(None if one.stop_gradient else gradient for one, gradient in zip(self.leaves, made.values(), strict=True))

        return {f"grad:{name}": tensor.data_ptr() for name, tensor in made.items()}, found

    def follow(self, moments: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        """Move the running statistics towards the mean and variance of a batch, row by row."""
        for bn, found in zip(self._norms, moments, strict=True):
            for running, value in zip((bn._mean, bn._variance), found, strict=True):
                array = _array(running.data_ptr(), value.size)
                array *= bn._momentum
                array += (1 - bn._momentum) * value


class _InVector:
    """The tensors of a network that all lie in one vector: a step then has one gradient, and looks at no tensor by itself.

    leaf: tensor as long as all parameters, which receives their gradient. parameters: by name.
    """

    def __init__(self, layer: PaddleNetwork, vector: Any, slices: Mapping[str, slice], size: int) -> None:
        self.parameters = {name: tensor for name, tensor in layer.named_tensors().items() if ".running_" not in name}
        self.leaf = paddle.zeros([size])
        self.leaf.stop_gradient = False
        self.leaves = (self.leaf,)
        self._vector = vector  # keeps the memory
        start = vector.data_ptr()
        self._addresses = {name: start + 4 * slices[name].start for name in self.parameters}
        self._offsets = {f"grad:{name}": 4 * slices[name].start for name in self.parameters}
        rows = [row for row in layer.network.convs if row.norm]
        self._momentum = layer._sub_layers[rows[0].name].bn._momentum if rows else 0.0
        self._running = _array(start + 4 * size, vector.size - size) if rows else np.zeros(0, np.float32)

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """Stand as None in copies and pickles of a network, which have tensors of their own, each by itself."""
        return type(None), ()

    def usable(self) -> bool:
        return True

    def addresses(self) -> dict[str, int]:
        return self._addresses

    def gradients(self) -> tuple[dict[str, int], Callable[[], Any]]:
        made = paddle.zeros([self.leaf.size])
        start = made.data_ptr()

        def found() -> Any:
            for name, tensor in self.parameters.items():
                if tensor.stop_gradient:  # frozen; oneDNN may have written one, beside that of a parameter that is trained
                    first = self._offsets[f"grad:{name}"] // 4
                    memory_of(made)[first : first + tensor.size] = 0
            return made

        return {name: start + offset for name, offset in self._offsets.items()}, found

    def follow(self, moments: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        if moments:
            self._running *= self._momentum
            self._running += (1 - self._momentum) * np.concatenate([value for found in moments for value in found])


def memory_of(tensor: Any) -> np.ndarray:
    """The numbers of a contiguous float32 tensor on the processor, as an array over the same memory, which the tensor must outlive."""
    return _array(tensor.data_ptr(), tensor.size).reshape(tensor.shape)


def _array(address: int, size: int) -> np.ndarray:
    """The float32 numbers at an address."""
    return np.ctypeslib.as_array((ctypes.c_float * size).from_address(address))


class _Compiled(paddle.autograd.PyLayer):
    """The whole network as one differentiable function of its parameters, run by oneDNN."""

    @staticmethod
    def forward(ctx: Any, run: TrainingPass, tensors: _Separate | _InVector, known: Callable[[], tuple[Any, tuple[Any, ...]]], *_: Any) -> Any:
        """known: function that returns images and outputs, because PyLayer would take tensors in arguments for inputs."""
        ctx.run, ctx.tensors = run, tensors
        ctx.images, outputs = known()
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        received = {f"grad:output{index}": gradient.astype("float32").contiguous() for index, gradient in enumerate(gradients)}
        room, found = ctx.tensors.gradients()
        outside = {name: tensor.data_ptr() for name, tensor in (("images", ctx.images), *received.items())}
        ctx.run.backward({**ctx.tensors.addresses(), **outside, **room})
        return found()


def _compiled(layer: PaddleNetwork, programs: Programs, images: Any, features: bool) -> list[Any] | None:
    """Heads, and features where asked for, computed by oneDNN; None where Paddle's own ops must compute them."""
    trains = all(layer._sub_layers[row.name].bn.training for row in layer.network.convs if row.norm)
    if not images.place.is_cpu_place() or images.dtype != paddle.float32 or not images.stop_gradient or 0 in images.shape or not trains:
        return None
    tensors = layer._tensors or _Separate(layer)
    if not tensors.usable():
        return None
    frozen = frozenset(name for name, tensor in tensors.parameters.items() if tensor.stop_gradient)
    program = programs.find(tuple(images.shape), frozen, features)
    if program is None:
        return None
    made = [paddle.empty(shape, "float32") for shape in program.outputs]
    run, images = TrainingPass(programs, program), images.contiguous()
    outside = {f"output{index}": output.data_ptr() for index, output in enumerate(made)}
    moments = run.forward({**tensors.addresses(), **outside, "images": images.data_ptr()})
    tensors.follow([*moments.values()])
    if not paddle.is_grad_enabled() or len(frozen) == len(tensors.parameters):
        run.end()
        return made
    return list(_Compiled.apply(run, tensors, lambda: (images, tuple(made)), *tensors.leaves))


def decode(network: Network, heads: Sequence[Any]) -> Any:
    """Boxes of all levels, as `octrim.backends.numpy.decode` defines them, as a Paddle tensor."""
    levels = []
    for logits, anchors, stride in zip(heads, network.anchors, network.strides, strict=True):
        batch, _, height, width = logits.shape
        cells = height * width
        y = F.sigmoid(logits).reshape([batch, len(anchors), -1, cells]).transpose([0, 1, 3, 2])
        grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).reshape(cells, 2).astype(np.float32)
        xy = y[..., :2] * (2.0 * stride) + paddle.to_tensor((grid - 0.5) * stride)
        wh = (y[..., 2:4] * 2.0) ** 2 * paddle.to_tensor(np.asarray(anchors, np.float32)[:, None])
        levels.append(paddle.concat([xy, wh, y[..., 4:]], axis=-1).reshape([batch, len(anchors) * cells, -1]))
    return paddle.concat(levels, axis=1)
