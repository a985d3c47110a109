"""Options: what the fields of commands may hold, whether it was typed, given from Python or stored."""

from __future__ import annotations

import contextlib
import io
import math
import typing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import octrim
from octrim.cli import main, parse, read_options
from octrim.commands import COMMANDS
from octrim.commands.pong import PONG
from octrim.compression.options import Compression
from octrim.compression.presets import PRESETS
from octrim.data.store import CACHES
from octrim.errors import InputError
from octrim.network.options import image_size
from octrim.options import CriterionName, Option, Range, arguments_of, from_python, from_stored, options_of
from octrim.pruning.importance import CRITERIA
from octrim.quantization.histogram import METHODS
from octrim.training.options import Training

EVERY = {**COMMANDS, **{f"pong {name}": command for name, command in PONG.items()}}


@dataclass(frozen=True)
class Sample:
    """A command with an option of every type."""

    command: ClassVar[str] = "sample"

    count: Annotated[int, Range(1, 10)] = 3
    rate: Annotated[float | None, Range(0, 2, above=True)] = None
    share: float = 0.5
    sizes: Annotated[tuple[int, ...] | None, Range(1)] = None
    patterns: tuple[str, ...] = ()
    kinds: tuple[int | str, ...] = ()
    text: str | None = None
    mode: Literal["fast", "best"] | None = None
    switch: bool = False


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"count": 0}, "count is 0, expected 1 to 10"),
        ({"count": 11}, "count is 11, expected 1 to 10"),
        ({"count": 2.0}, "count is 2.0, expected a whole number, 1 to 10"),
        ({"count": True}, "count is True, expected a whole number, 1 to 10"),
        ({"count": None}, "count is None"),
        ({"rate": 0}, "rate is 0.0, expected more than 0 and at most 2"),
        ({"rate": math.nan}, "rate is nan, expected more than 0 and at most 2"),
        ({"rate": np.float32("inf")}, "rate is inf, expected more than 0 and at most 2"),
        ({"rate": 10**400}, "rate is inf, expected"),
        ({"share": math.nan}, "share is nan, expected a finite number"),
        ({"share": -math.inf}, "share is -inf, expected a finite number"),
        ({"sizes": (3, 0)}, "sizes is 0, expected 1 or more"),
        ({"sizes": "3"}, "sizes is '3', expected a whole number, 1 or more"),
        ({"text": b"a"}, "text is b'a', expected text"),
        ({"mode": "slow"}, "mode is 'slow', expected fast or best"),
        ({"switch": 1}, "switch is 1, expected True or False"),
        ({"switch": np.asarray([True])}, r"switch is \[True\], expected True or False"),
    ],
)
def test_values_that_no_option_holds(options: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        from_python(Sample, options)
    if all(type(value) in (int, float, str, bool) for value in options.values()):
        with pytest.raises(InputError, match=f"config.yaml: {told}"):
            from_stored(Sample, options, "config.yaml")


def test_values_from_python_are_pythons_own() -> None:
    """config.yaml and the command line can hold them: an instance of NumPy's types in either would be lost or an error."""
    given = {"count": np.int64(3), "rate": np.float32(0.5), "sizes": np.asarray([4, 5]), "patterns": ["a", Path("b/c")], "text": np.float64(0.25)}
    config = from_python(Sample, {**given, "kinds": [np.uint8(1), "b"], "switch": np.bool_(True), "mode": np.str_("best"), "share": 1})
    assert config == Sample(3, 0.5, 1.0, (4, 5), ("a", "b/c"), (1, "b"), "0.25", "best", True)
    values = [config.count, config.rate, config.share, config.text, config.switch, *(config.sizes or ()), *config.kinds]
    assert [type(value) for value in values] == [int, float, float, str, bool, int, int, int, str]
    assert from_python(Sample, {"sizes": np.int16(7), "text": Path("x")}) == Sample(sizes=(7,), text="x")
    with pytest.raises(TypeError, match=r"sample\(\) got an unexpected keyword argument 'size'"):
        from_python(Sample, {"size": 3})


def test_numpys_numbers_in_the_python_api() -> None:
    assert image_size(np.int64(320), 640, 32) == (320, 320)
    assert image_size(np.asarray([320, 330]), 640, 32) == (320, 352)
    model = octrim.fresh_model("yolov5n", 3, seed=np.int64(1))
    assert (model.tensors["model.0.conv.weight"] == octrim.fresh_model("yolov5n", 3, seed=1).tensors["model.0.conv.weight"]).all()
    by_numpy = octrim.plan(model, keep=np.float64(0.5), align=np.int64(8), seed=np.int64(0))
    by_python = octrim.plan(model, keep=0.5, align=8, seed=0)
    assert by_numpy.text() == by_python.text()
    assert by_numpy.to_json() == by_python.to_json()


@pytest.mark.parametrize("name", EVERY)
def test_every_option_states_what_it_may_hold(name: str) -> None:
    """A type that is known, a range where it is a number, a default that it allows itself, and names that no other option has."""
    options = options_of(EVERY[name])
    names = [spelling for option in options.values() for spelling in option.names]
    assert len(names) == len(set(names))
    for option in options.values():
        # An option is chosen from a list, or of a type; or it is a number in place of which a word may stand, such as auto.
        assert bool(option.kinds) != bool(option.choices) or (option.kinds == (int,) and {type(choice) for choice in option.choices} == {str})
        assert set(option.kinds) <= {bool, int, float, str}
        assert option.range is not None or not {int, float} & set(option.kinds), option.name
        if isinstance(option.default, str | int | float | tuple):
            assert option.value(option.default, option.name) == option.default


@pytest.mark.parametrize("name", [*EVERY, "", "pong"])
def test_help_can_be_read(name: str) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main([*name.split(), "--help"]) == 0
    assert "{None}" not in printed.getvalue()
    assert "{[" not in printed.getvalue()
    for option in options_of(EVERY[name]).values() if name in EVERY else ():
        assert option.names[0] in printed.getvalue() or option.name.upper() in printed.getvalue() or "RUN" in printed.getvalue()


def test_choices_are_those_of_the_tables_that_run_them() -> None:
    def choices(command: str, option: str) -> set[str]:
        return set(options_of(COMMANDS[command])[option].choices)

    assert set(typing.get_args(CriterionName)) == set(CRITERIA) | {"taylor"}  # which needs gradients, and so is no function of the model alone
    assert choices("compress", "preset") == set(PRESETS)
    assert choices("train", "cache") == choices("compress", "cache") == set(CACHES)
    assert choices("quantize", "method") == set(METHODS)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("compress --finetune-lr0 0", "octrim compress: error: --finetune-lr0 is 0.0, expected more than 0 and at most 10"),
        ("train --lr0 0 --data nothing", "octrim train: error: --lr0 is 0.0, expected more than 0"),
        ("finetune lr0=nan --data nothing", "octrim finetune: error: lr0 is nan, expected more than 0"),
        ("sparsify --strength inf", "octrim sparsify: error: --strength is inf, expected 0 to 1000000"),
        ("train --batch-size 0", "octrim train: error: --batch-size is 0, expected 1 to 65536"),
        ("train nominal_batch=0", "octrim train: error: nominal_batch is 0, expected 1 to 65536"),
        ("val --conf-thres=1.5", "octrim val: error: --conf-thres is 1.5, expected 0 to 1"),
        ("prune --cfg yolov5n --keep 2", "octrim prune: error: --keep is 2, expected more than 0 and at most 1"),
        ("prune --cfg yolov5n keep=nan", "octrim prune: error: keep is 'nan', expected a fraction"),
        ("predict --threads", "octrim predict: error: --threads: the value is missing"),
        ("predict --source --nosave", "octrim predict: error: --source: the value is missing"),
        ("predict --max-det ²", "octrim predict: error: --max-det is '²', expected a whole number, 1 or more"),
        ("predict picture.jpg", "octrim predict: error: 'picture.jpg' belongs to no option; octrim predict --help lists them"),
        ("predict --nosave yes", "octrim predict: error: 'yes' belongs to no option"),
        ("predict --nosave=maybe", "octrim predict: error: --nosave is 'maybe', expected True or False"),
        ("predict --conf 0.1 0.2", "octrim predict: error: '0.2' belongs to no option"),
        ("train --epoch 3", "octrim train: error: there is no option --epoch (did you mean --epochs?); octrim train --help lists them"),
        ("trian", "octrim: error: there is no command 'trian' (did you mean train?); there are info, data,"),
        ("pong", "octrim pong: error: a command is missing; there are play, data, match"),
        ("pong plya", "octrim pong: error: there is no command 'plya' (did you mean play?)"),
        ("report", "octrim report: error: FOLDER is missing; see octrim report --help"),
        ("export --format tflight", "octrim export: error: --format is 'tflight', expected "),
    ],
)
def test_one_plain_line(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, told: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith(told)
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_options_out_of_range_are_refused_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="finetune_lr0 is 0.0, expected more than 0 and at most 10"):
        octrim.compress(finetune_lr0=0)
    with pytest.raises(InputError, match="lr0 is nan"):
        octrim.train(lr0=float("nan"), data="nothing")
    with pytest.raises(InputError, match="target is 1, expected less than 1"):
        octrim.sparsify(target=np.int64(1), data="nothing")
    assert not list(tmp_path.iterdir())


def test_several_numbers_in_one_word() -> None:
    assert parse(["bench", "batch=1,4,8"]).batch == (1, 4, 8)
    assert parse(["bench", "batch=[1, 4, 8]", "--imgsz", "480,640"]).imgsz == (480, 640)
    assert parse(["export", "batch-size=(1 2 4)"]).batch == (1, 2, 4)
    assert parse(["train", "freeze=10", "--freeze", "3", "model.1*"]).freeze == ("3", "model.1*")
    assert parse(["predict", "--img", "480", "640", "--imgsz=320"]).imgsz == (320,)  # the last one counts
    with pytest.raises(InputError, match="batch: the value is missing"):
        parse(["bench", "batch=[]"])


def test_switches_and_spellings() -> None:
    assert parse(["predict", "--save_txt", "--max_det=7"]) == parse(["predict", "save-txt=on", "max-det=7"])
    assert parse(["predict", "--save-txt=False", "agnostic-nms=yes"]) == replace(parse(["predict"]), agnostic=True)
    assert not parse(["pong", "play", "--spin", "False"]).spin
    assert parse(["predict", "--threads", "None"]).threads is None
    assert parse(["report", "runs/x=3"]).folder == "runs/x=3"


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Sample, Training, Compression])
def test_arguments_give_the_configuration_back(kind: Any) -> None:
    @given(st.fixed_dictionaries({}, optional={name: values(option) for name, option in options_of(kind).items() if option.kinds != (bool,)}))
    def back(options: dict[str, Any]) -> None:
        config = from_python(kind, options)
        command, *arguments = arguments_of(config)
        assert command == kind.command
        assert read_options(kind, arguments, "octrim") == config
        assert from_stored(kind, {name: list(v) if isinstance(v, tuple) else v for name, v in vars(config).items()}, "x") == config

    back()


def values(option: Option) -> st.SearchStrategy[Any]:
    """Values that the option allows and that can be typed: words do not look like options or like `name=value`."""
    if option.choices and not option.kinds:
        return st.sampled_from(option.choices)
    low, high = (option.range.low, option.range.high) if option.range else (-5, 5)
    high = low + 1000 if high is None else high
    kinds = {
        int: st.integers(math.ceil(low), math.floor(high)),
        float: st.floats(low, high, exclude_min=option.range is not None and option.range.above),
        str: st.text("ab*.[]0/ü", min_size=1).filter(lambda text: int not in option.kinds or not text.strip("[]").isdigit()),
    }
    words = st.text("abü", min_size=1)  # numbers and names together: a word of digits is a number
    one = st.one_of([words if kind is str and int in option.kinds else kinds[kind] for kind in option.kinds])
    one = one | st.sampled_from(option.choices) if option.choices else one
    return st.lists(one, min_size=1, max_size=4).map(tuple) if option.many else one


def test_ranges() -> None:
    assert [value in Range(0, 1, above=True) for value in (-1, 0, 0.5, 1, 1.5, math.nan)] == [False, False, True, True, False, False]
    assert [value in Range(2) for value in (1, 2, 10**30, math.nan)] == [False, True, True, False]
    assert [str(one) for one in (Range(1, 100), Range(1), Range(0, above=True), Range(0, 10, above=True))] == [
        "1 to 100",
        "1 or more",
        "more than 0",
        "more than 0 and at most 10",
    ]
    assert Fraction(1, 2) in Range(0, 1)


def test_older_names_of_options() -> None:
    """`--iterations` meant two things: steps of the cut, and rounds of a measurement."""
    today = Compression(cut_steps=3, bench_rounds=7)
    assert from_python(Compression, {"iterations": 3, "iterations_bench": 7}) == today
    assert from_stored(Compression, {"iterations": 3, "iterations_bench": 7}, "config.yaml") == today
    assert parse(["compress", "--iterations", "3", "iterations-bench=7"]) == COMMANDS["compress"](cut_steps=3, bench_rounds=7)
    assert parse(["bench", "--iterations", "5"]) == COMMANDS["bench"](rounds=5)
    with pytest.raises(TypeError, match="iteration_s"):
        from_python(Compression, {"iteration_s": 3})
