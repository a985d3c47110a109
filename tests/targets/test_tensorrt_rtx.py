"""Networks in NVIDIA's own builder: TensorRT for RTX has the API of TensorRT 11 and builds without a GPU; nothing here runs an engine.

    python -m tests.targets.test_tensorrt_rtx    # every variant, cut, precision and option instead of some; minutes

It also judges the stand-in, which may refuse more than the builder does, but nothing less.
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octrim.errors import InputError
from octrim.network.cost import shapes
from octrim.network.folding import folded_conv
from octrim.network.model import Model
from octrim.network.rows import Network
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.targets.tensorrt import layers as tensorrt_layers
from octrim.targets.tensorrt.build import build_engine, engine_header, import_tensorrt, logger
from octrim.targets.tensorrt.layers import define
from tests.networks import lively_model, random_networks, variant
from tests.targets.int8_reference import with_scales
from tests.targets.tensorrt_networks import pictures, settled, side
from tests.targets.tensorrt_programs import Step, steps
from tests.targets.tensorrt_standin import VERSIONS, installed
from tests.targets.tensorrt_standin.api import FACTS
from tests.targets.tensorrt_standin.draft import Draft
from tests.targets.tensorrt_standin.excerpt import plain
from tests.targets.test_tensorrt_standin import CALLS, GONE, NETWORKS

rtx: Any = pytest.importorskip(
    "tensorrt_rtx_bindings", reason="no tensorrt-rtx-cu13-bindings here: the extra dev has it for Linux on x86-64", exc_type=ImportError
)

REAL: Any = SimpleNamespace(trt=rtx)  # for a Draft in place of a stand-in


@pytest.fixture(autouse=True)
def no_other_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    logger(rtx).errors.clear()


def complaints() -> list[str]:
    """Errors since they were last cleared, but for the one that there is no driver."""
    return [message for message in logger(rtx).errors if "cudaError" not in message]


# Our networks.

CUTS = ("original", "1/2 align 1", "1/2 align 8", "1/2 align 16", "1/8 align 1", "1/8 align 8", "1/8 align 16")

OPTIONS: dict[str, dict[str, Any]] = {
    "pixels": {},
    "floats": {"pixels": False, "decode": False},
    "batches": {"batch": (1, 2, 4)},
    "batch": {"batch": 2, "decode": False},
    "padded": {"pad_channels": 16},
}


@lru_cache(maxsize=2)
def network_of(name: str, cut: str, scales: bool) -> Model:
    if scales:
        model = settled(name, cut)
        return with_scales(model, pictures(1, side(model.network), side(model.network)), exclude=["model.2.cv1"])
    model = variant(name)
    if cut == "original":
        return model
    keep, _, align = cut.split()
    return prune(model, plan(model, keep, int(align)))


def recorded(trt: Any, model: Model, height: int, width: int, precision: str, options: dict[str, Any]) -> list[list[tuple[Any, ...]]]:
    """Name, shape and type of every layer's output, as the module infers them, and then of the network's outputs."""
    builder = trt.Builder(logger(trt))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    kept = define(trt, network, model, height, width, precision, **options)
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    found = [[(layer.name, *spec(layer.get_output(0))) for layer in layers], [(tensor.name, *spec(tensor)) for tensor in outputs]]
    del kept
    return found


def spec(tensor: Any) -> tuple[tuple[int, ...], str]:
    return tuple(tensor.shape), tensor.dtype.name


def check(model: Model, height: int, width: int, precision: str, options: dict[str, Any]) -> int:
    """NVIDIA's builder takes the network and sees in it what the stand-in and the table do; the engine's size."""
    given = recorded(rtx, model, height, width, precision, options)
    assert not complaints()
    with installed(VERSIONS[-1]) as fake:
        assert given == recorded(fake.trt, model, height, width, precision, options)
    batch = options.get("batch", 1)
    count = batch if isinstance(batch, int) else -1
    layers = {name: (shape, dtype) for name, shape, dtype in given[0]}
    pad = options.get("pad_channels", 1)
    for name, (channels, *sides) in list(shapes(model.network, height, width).items())[1:]:
        (found_count, found_channels, *found_sides), dtype = layers[name]
        assert (found_count, found_sides) == (count, sides), name
        assert found_channels == channels or (pad > 1 and found_channels >= channels), name
        assert dtype == ("FLOAT" if precision == "fp32" or options.get("high_precision") == "fp32" else "HALF"), name
    maps = [shapes(model.network, height, width)[head] for head in model.network.rows[-1].inputs]
    anchors = len(model.network.anchors[0])
    expected = [("output0", (count, sum(anchors * high * wide for _, high, wide in maps), 5 + model.network.classes), "FLOAT")]
    if not options.get("decode", True):
        expected = [(f"head{level}", (count, *sizes), "FLOAT") for level, sizes in enumerate(maps)]
    assert given[1] == expected
    logger(rtx).errors.clear()
    engine = build_engine(model, height, width, precision, **options)
    assert not complaints()
    return len(engine)


@pytest.mark.slow
@pytest.mark.parametrize("cut", ["original", "1/2 align 8", "1/8 align 1"])
@pytest.mark.parametrize("name", ["yolov5n", "yolov5s", "yolov5n6", "yolov5s6"])
def test_original_and_pruned(name: str, cut: str) -> None:
    scales = name in ("yolov5n", "yolov5s")
    model = network_of(name, cut, scales)
    sides = side(model.network)
    for precision in ("fp32", "fp16", *["int8"] * scales):
        assert check(model, sides, sides, precision, {}) > 1_000_000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolov5m", "yolov5l", "yolov5x", "yolov5m6", "yolov5l6", "yolov5x6"])
def test_large_variants(name: str) -> None:
    """Cut, because the original's hundreds of megabytes take half a minute; `python -m` does not leave them out."""
    model = network_of(name, "1/8 align 8", False)
    assert check(model, side(model.network), side(model.network), "fp16", {}) > 1_000_000


@pytest.mark.slow
@pytest.mark.parametrize("option", ["floats", "batches", "batch", "padded"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_options(precision: str, option: str) -> None:
    check(network_of("yolov5n", "1/2 align 1", True), 64, 96, precision, OPTIONS[option])


@pytest.mark.slow
def test_int8_with_float32_between() -> None:
    check(network_of("yolov5n", "original", True), 64, 64, "int8", {"high_precision": "fp32"})


@pytest.mark.slow
@settings(max_examples=10)
@given(network=random_networks(), precision=st.sampled_from(["fp32", "fp16", "int8"]), pad=st.sampled_from([1, 16]))
def test_random_networks(network: Network, precision: str, pad: int) -> None:
    """Every activation, groups, residuals of maps with unlike padding."""
    logger(rtx).errors.clear()
    check(with_scales(lively_model(network, seed=1), pictures(1, 32, 64)), 32, 64, precision, {"pad_channels": pad})


def test_it_serves_where_tensorrt_is_missing() -> None:
    assert import_tensorrt() is rtx
    header = engine_header(network_of("yolov5n", "original", True), 64, 64, "fp16", 1, True, True, b"engine")
    assert header.tensorrt == f"rtx {rtx.__version__}"


def test_a_refused_network_is_explained_by_the_layer_that_was_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by the last of its messages, which is about a layer far behind it."""
    monkeypatch.setattr(tensorrt_layers, "folded_conv", lambda model, row: (folded_conv(model, row)[0], np.zeros(5)))
    with pytest.raises(InputError, match=r"bias weights has count 5 but 16 was expected"):
        build_engine(network_of("yolov5n", "original", True), 64, 64)


def test_progress_and_its_end() -> None:
    said: list[tuple[str, int, int]] = []
    model = network_of("yolov5n", "1/8 align 1", True)
    build_engine(model, 64, 64, progress=lambda phase, done, total: said.append((phase, done, total)))
    assert said[-1][1] == said[-1][2] > 0

    def interrupted(phase: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(model, 64, 64, progress=interrupted)


# The stand-in.

# What it refuses and the builder does not: undocumented defaults, what would be slow or wrong, what it does not model.
STRICTER = {
    *("optimization level", "array as shape", "empty dimension", "permutation", "profile that falls", "profile without shapes", "not modelled"),
    *("operand of int8", "concatenation without axis", "concatenation of two scales", "leaky ReLU without slope", "clip without limits"),
    *("padding of a whole window", "resize without scales", "linear resize", "rounding of a resize", "zero scale", "half scale of a float"),
    *("half scale, float out", "subnormal scale", "computed scale", "scales of an activation", "scales of another axis"),
    *("dequantized scalar", "dequantized with another scale", "int8 weights, float input", "float kernel tensor", "int8 output", "unread input"),
}

WRONG: dict[str, Callable[[Draft], Any]] = {case: call for case, (call, *_) in CALLS.items()} | GONE
NOT_BUILT: dict[str, Callable[[Draft], Any]] = {case: write for case, (write, _) in NETWORKS.items() if case != "freed kernel"}  # read after free


def refused(write: Callable[[Draft], Any], build: bool) -> bool:
    draft = Draft(REAL, logger=logger(rtx))
    logger(rtx).errors.clear()
    try:
        made = write(draft)
        failed = build and (made is None or draft.build(made) is None)
    except (TypeError, ValueError, AttributeError, RuntimeError):
        return True
    return failed or bool(complaints())


@pytest.mark.slow
@pytest.mark.parametrize("case", [*WRONG, *NOT_BUILT])
def test_wrong_programs(case: str) -> None:
    assert refused((WRONG | NOT_BUILT)[case], case in NOT_BUILT) == (case not in STRICTER)


# Of version 11.4, not in TensorRT for RTX; OcTrim uses none of them.
MISSING = {
    *("Builder.build_engine_with_config", "Builder.build_serialized_network", "IBuilderConfig.remote_auto_tuning_config"),
    *("INetworkDefinition.add_plugin", "INetworkDefinition.add_plugin_v2", "INetworkDefinition.add_plugin_v3"),
    *("INetworkDefinition.has_implicit_batch_dimension", "ITensor.broadcast_across_batch", "ITensor.location", "Logger.min_severity"),
    *("NetworkDefinitionCreationFlag.PREFER_AOT_PYTHON_PLUGINS", "NetworkDefinitionCreationFlag.PREFER_JIT_PYTHON_PLUGINS"),
}


def test_the_signatures_are_those_that_the_stand_in_knows() -> None:
    """Of every method, property and enum member; `build_serialized_network` has one overload less, `min_severity` says no type."""
    facts, different, count = FACTS[VERSIONS[-1]], set(), 0
    for name, known in facts["classes"].items():
        made = getattr(rtx, name)
        for method, overloads in known["methods"].items():
            count += 1
            if not method.startswith("__") or method == "__init__":
                found = signatures(method, getattr(made, method, None))
                different |= {f"{name}.{method}"} if found != overloads else set()
        for key, (_, written) in known["properties"].items():
            count += 1
            setter = getattr(getattr(made, key, None), "fset", None)
            found = re.findall(r"arg1: (.*?)\) ->", spelled(setter.__doc__ or "")) if setter else [None]
            different |= {f"{name}.{key}"} if found != [written] or not hasattr(made, key) else set()
    for name, members in facts["enums"].items():
        found = {key: int(member) for key, member in getattr(rtx, name).__members__.items()}
        count += len(members)
        different |= {f"{name}.{key}" for key, value in members.items() if found.get(key) != value}
    assert count > 550
    assert different == MISSING


def spelled(text: str) -> str:
    """A docstring of TensorRT for RTX as the facts spell it. pybind11 finds some types in the standard library, from Python 3.12 or 3.13 on."""
    for found, meant in (
        ("tensorrt_rtx_bindings.tensorrt_rtx.", "trt."),
        ("collections.abc.Buffer", "typing_extensions.Buffer"),
        ("types.CapsuleType", "typing_extensions.CapsuleType"),
    ):
        text = text.replace(found, meant)
    return plain(text)


def signatures(name: str, method: Any) -> list[list[list[str]]]:
    """The overloads in a docstring of pybind11, without self: parameters as the facts have them."""
    found = []
    for line in re.findall(
        rf"^(?:\d+\. )?{name}\((?:self|arg0): [\w.]+(?:, )?(.*)\) -> ", spelled(getattr(method, "__doc__", None) or ""), re.MULTILINE
    ):
        parts = re.split(r", (?=\w+: )", line) if line else []
        found.append([re.split(r": (?!\d)| = ", text, maxsplit=2) for text in parts])
    return found


_REFUSALS = (TypeError, ValueError, NotImplementedError, AttributeError, RuntimeError)


@pytest.mark.slow
@settings(max_examples=80)
@given(layers=steps(), dtype=st.sampled_from(["FLOAT", "FLOAT", "HALF", "INT32", "UINT8"]), dynamic=st.booleans())
def test_what_the_stand_in_accepts_is_accepted_with_the_same_shapes(layers: list[tuple[str, Step]], dtype: str, dynamic: bool) -> None:
    logger(rtx).errors.clear()
    shape = (-1 if dynamic else 1, 4, 6, 6)
    with installed(VERSIONS[-1]) as fake:
        mine, theirs = Draft(fake, shape, dtype), Draft(REAL, shape, dtype, logger(rtx))
        ours, given = [mine.x], [theirs.x]
        right: list[Step] = []
        for name, step in layers:
            try:
                tensor = step(mine, ours)
                expected = spec(tensor)
            except _REFUSALS:
                continue
            ours.append(tensor)
            given.append(step(theirs, given))
            right.append(step)
            assert not complaints(), name
            assert spec(given[-1]) == expected, name
        if len(given) == 1 or spec(given[-1])[1] == "INT8":
            return
        again = Draft(fake, shape, dtype)  # without the layers that were refused
        tensors = [again.x]
        for step in right:
            tensors.append(step(again, tensors))
        built = [finished(draft, tensor, dynamic) for draft, tensor in ((again, tensors[-1]), (theirs, given[-1]))]
        assert built[1] or not built[0], complaints()


def finished(draft: Draft, output: Any, dynamic: bool) -> bool:
    if dynamic:
        profile = draft.builder.create_optimization_profile()
        profile.set_shape("images", *((count, 4, 6, 6) for count in (1, 2, 3)))
        draft.config.add_optimization_profile(profile)
    return draft.build(output) is not None


def main() -> None:
    """Every variant (or those named) and cut in fp32 and fp16; n, s, n6, s6 also in int8, and with every option three of their cuts."""
    sys.modules["tensorrt"] = None  # type: ignore[assignment]
    counts: Counter[str] = Counter()
    begun = time.perf_counter()
    for name in sys.argv[1:] or [f"yolov5{size}{level}" for size in "nsmlx" for level in ("", "6")]:
        small = name[6] in "ns"
        started, before = time.perf_counter(), sum(counts.values())
        for cut in CUTS:
            model = network_of(name, cut, small)
            options = OPTIONS if small and cut in ("original", "1/2 align 1", "1/8 align 8") else {"pixels": OPTIONS["pixels"]}
            for (option, chosen), precision in product(options.items(), ("fp32", "fp16", *["int8"] * small)):
                check(model, side(model.network), side(model.network), precision, chosen)
                counts[f"{precision} {option}"] += 1
            if small:
                check(model, side(model.network), side(model.network), "int8", {"high_precision": "fp32"})
                counts["int8 with float32 between"] += 1
        print(f"{name}: {sum(counts.values()) - before} engines in {time.perf_counter() - started:.0f} s", flush=True)
    print(f"{sum(counts.values())} engines in {time.perf_counter() - begun:.0f} s, {time.process_time():.0f} s of a core:", dict(counts))


if __name__ == "__main__":
    main()
