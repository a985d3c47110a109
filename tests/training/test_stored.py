"""Values in a run's own files that no run has written: one line that names the file, never a traceback."""

from __future__ import annotations

import dataclasses
import json
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octrim.commands import Compress, Train
from octrim.compression.job import Job, finished, left, once, stored
from octrim.compression.presets import PRESETS
from octrim.compression.start import remembered
from octrim.errors import InputError
from octrim.network.cost import tensor_shapes
from octrim.network.initialize import fresh_tensors
from octrim.network.model import Model
from octrim.runs import new_run
from octrim.stages import STAGES, Stage
from octrim.training.checkpoint import CHECKPOINT, State, load_state, save_state, stored_averaging
from octrim.training.cutting import GradualCut
from octrim.training.hyper import Hyperparameters, stored_hyperparameters
from octrim.training.schedule import PUBLISHED, Averaging
from octrim.training.setup import resumed
from octrim.training.vectors import kind_of
from tests.networks import three_levels

NETWORK = three_levels(classes=1)


def saved(path: Path, extra: dict[str, Any]) -> Path:
    """A checkpoint before the first step, with `extra` in it."""
    sizes = {name: int(np.prod(shape)) for name, shape in tensor_shapes(NETWORK).items()}
    total, parameters = sum(sizes.values()), sum(size for name, size in sizes.items() if kind_of(name) < 3)
    arrays = {
        name: np.zeros(size, np.float32) for name, size in (("values", total), ("average", total), ("gradient", parameters), ("moment0", parameters))
    }
    save_state(State(NETWORK, ("a",), 64, (), "digest", arrays, extra=extra), path)
    return path


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({}, "hyper-parameters are None, expected names with numbers"),
        ({"hyper": [1]}, "hyper-parameters are"),
        ({"hyper": {"lr0": "0.01"}}, "hyper-parameter 'lr0' is '0.01'"),
        ({"hyper": {"lr0": True}}, "hyper-parameter 'lr0' is True"),
        ({"hyper": {"lr7": 0.1}}, "hyper-parameter 'lr7' is 0.1"),
        ({"hyper": {"lr0": -1}}, "lr0 is -1, expected 0 to 10"),
    ],
)
def test_a_checkpoint_without_its_recipe(tmp_path: Path, extra: dict[str, Any], message: str) -> None:
    run = new_run(Train(project=str(tmp_path), name="run"))
    saved(run.path / CHECKPOINT, extra)
    with pytest.raises(InputError, match=message) as error:
        resumed(Train(resume=str(run.path)))
    assert str(error.value).startswith(str(run.path / CHECKPOINT))


def test_a_recipe_comes_back() -> None:
    hyper = Hyperparameters(lr0=0.02, mixup=0.1)
    assert stored_hyperparameters(json.loads(json.dumps(dataclasses.asdict(hyper)))) == hyper


@pytest.mark.parametrize(
    "extra",
    [
        {"strength": "1"},
        {"strength": -1.0},
        {"strength": None},
        {"scales": [1]},
        {"scales": {"top": 0.0, "counts": []}},
        {"scales": {"top": 1.0}},
        {"scales": {"top": 1.0, "counts": [1, 2]}},
        {"scales": {"top": 1.0, "counts": [[1, 2], [1]]}},
        {"scales": {"top": 1.0, "counts": [[1, 0.5]]}},
    ],
)
def test_what_sparsity_training_cannot_have_kept(tmp_path: Path, extra: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="damaged checkpoint: extra"):
        load_state(saved(tmp_path / "checkpoint" / "state.safetensors", extra))
    saved(tmp_path / "checkpoint" / "state.safetensors", {"strength": 0.5, "scales": {"top": 1.0, "counts": [[1, 2], [3, 0]]}})
    assert load_state(tmp_path / "checkpoint" / "state.safetensors").extra["strength"] == 0.5


def cut_notes(**changes: Any) -> dict[str, Any]:
    """What a training of `saved`'s network that cuts keeps, with changes."""
    state = State(NETWORK, ("a",), 64, (), "digest", {})
    GradualCut(3, "1/2", criterion="signal").begin(Model(NETWORK, fresh_tensors(NETWORK, 0), ("a",), 64), state)
    return {"cutting": state.extra["cutting"] | changes}


@pytest.mark.parametrize(
    "changes",
    [
        {"table": []},
        {"table": None},
        {"kept": []},
        {"kept": {"model.0": [0]}},
        {"kept": {"model.0": list(range(1, 17))}},
        {"kept": {"model.0": [0.5] * 16}},
        {"kept": {"model.4": [1]}},
        {"wanted": {}},
        {"wanted": {"epochs": 0}},
        {"removed": {"": 2.0}},
        {"removed": [1]},
        {"share": 0},
        {"level": -1},
        {"step": 1.5},
        {"done": 1},
    ],
)
def test_what_cutting_cannot_have_kept(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "checkpoint" / "state.safetensors"
    with pytest.raises(InputError, match="damaged checkpoint|table|a network starts") as error:
        load_state(saved(path, cut_notes(**changes)))
    assert str(error.value).startswith(str(path))
    saved(path, cut_notes())
    assert GradualCut.remembered(load_state(path)) == GradualCut(3, "1/2", criterion="signal")


def test_patterns_of_a_keep_map_keep_their_order(tmp_path: Path) -> None:
    """The last one that matches counts: after a resume, too, all convolutions keep half."""
    path, wanted = tmp_path / "checkpoint" / "state.safetensors", GradualCut(3, align=4, criterion="signal", keep_map={"model.0": "1/4", "*": "1/2"})
    model, state = Model(NETWORK, fresh_tensors(NETWORK, 0), ("a",), 64), State(NETWORK, ("a",), 64, (), "digest", {})
    wanted.begin(model, state)
    remembered = GradualCut.remembered(load_state(saved(path, {"cutting": state.extra["cutting"]})))
    assert remembered == wanted and remembered is not None
    assert list(remembered.keep_map) == ["model.0", "*"]
    assert remembered.check(model).network == wanted.check(model).network
    state.extra["cutting"]["wanted"]["keep_map"] = {"*": "1/2", "model.0": "1/4"}  # as in checkpoints of earlier versions
    assert GradualCut.remembered(load_state(saved(path, {"cutting": state.extra["cutting"]}))) == wanted


@pytest.mark.parametrize("keep_map", [None, [1], [["model.0"]], [[1, 2]], {"model.0": {}}, [["model.0", "1/2", 3]]])
def test_what_is_no_keep_map(tmp_path: Path, keep_map: object) -> None:
    wanted = cut_notes()["cutting"]["wanted"] | {"keep_map": keep_map}
    with pytest.raises(InputError, match="damaged checkpoint"):
        load_state(saved(tmp_path / "state.safetensors", cut_notes(wanted=wanted)))


@pytest.mark.parametrize(
    "average",
    [
        None,
        0.9,
        {},
        {"decay": 0.9},
        {"decay": 0.9, "ramp": 0},
        {"decay": 1.0, "ramp": 20.0},
        {"decay": "0.9", "ramp": 20.0},
        {"decay": -0.1, "ramp": 1.0},
        {"decay": 0.9, "ramp": True},
        {"decay": 0.9, "ramp": 20.0, "more": 1},
    ],
)
def test_an_average_that_no_training_has_chosen(tmp_path: Path, average: object) -> None:
    path = tmp_path / "checkpoint" / "state.safetensors"
    with pytest.raises(InputError, match="damaged checkpoint: extra"):
        load_state(saved(path, {"average": average}))
    assert stored_averaging(load_state(saved(path, {"average": {"decay": 0.9, "ramp": 20.0}}))) == Averaging(0.9, 20.0)
    assert stored_averaging(load_state(saved(path, {}))) == PUBLISHED


ROW = {"parameters": 1, "macs": 2, "channels": 3, "file_bytes": 4, "mAP50": 0.5, "mAP50-95": 0.25, "interval": [0.2, 0.3], "epochs": None}


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"seconds": "5"},
        {"seconds": float("nan")},
        {"seconds": True},
        {"seconds": 5, "row": None},
        {"seconds": 5, "row": ROW, "model": 5},
        {"seconds": 5, "row": {}},
        {"seconds": 5, "row": ROW | {"macs": "2"}},
        {"seconds": 5, "row": ROW | {"mAP50": None}},
        {"seconds": 5, "row": ROW | {"interval": [0.2]}},
        {"seconds": 5, "row": {name: value for name, value in ROW.items() if name != "epochs"}},
        {"seconds": 5, "bench": [1]},
        {"seconds": 5, "bench": {"original": {"network_p50_ms": 1.0}}},
        {"seconds": 5, "match": {"opponent": "standard", "original": {"wins": 1}}},
        {"seconds": 5, "cuts": {}},
    ],
)
def test_a_stage_that_no_compression_has_left(tmp_path: Path, content: object) -> None:
    (tmp_path / "stage.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"stage\.json: damaged; delete it"):
        stored(tmp_path)
    (tmp_path / "stage.json").write_text(json.dumps({"seconds": 5, "row": ROW, "bench": {}, "cuts": []}))
    assert stored(tmp_path) is not None


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.folder)
def test_a_stage_that_lacks_its_results(tmp_path: Path, stage: Stage) -> None:
    (tmp_path / stage.folder).mkdir()
    assert finished(tmp_path, stage) is None and left(tmp_path, stage) == tmp_path / stage.weights
    file = tmp_path / stage.folder / "stage.json"
    for missing in stage.results:
        whole = {"row": ROW, "export": {}, "bench": {}, "match": {}, "search": {}, "dropping": {}, "int8": {}}
        file.write_text(json.dumps({"seconds": 5} | {name: value for name, value in whole.items() if name != missing}))
        for read in (finished, left):
            with pytest.raises(InputError, match=rf"{stage.folder}.stage\.json: lacks {missing}; delete it, and the stage is done again"):
                read(tmp_path, stage)
    assert stage.results


def test_a_step_within_a_stage_that_lacks_its_results(tmp_path: Path) -> None:
    (tmp_path / "stage.json").write_text('{"seconds": 5}')
    with pytest.raises(InputError, match=r"stage\.json: lacks row; delete it"):
        once(typing.cast(Job, None), tmp_path, lambda *_: pytest.fail("was done again"), ["row", "model"])


@pytest.mark.parametrize(
    "change",
    [{"sha256": {"weights": 5}}, {"sha256": [1]}, {"preset": {}}, {"preset": [1]}, {"sha256": None}],
)
def test_a_start_that_no_compression_has_written(tmp_path: Path, change: dict[str, Any]) -> None:
    content = {"preset": dataclasses.asdict(next(iter(PRESETS.values()))), "sha256": {"weights": "ab"}}
    (tmp_path / "start.json").write_text(json.dumps(content))
    assert remembered(tmp_path, Compress())[1] == {"weights": "ab"}
    del content["preset"]["ema"]  # as runs began before there was a choice
    (tmp_path / "start.json").write_text(json.dumps(content))
    assert remembered(tmp_path, Compress(ema="auto"))[0].ema == "published"
    (tmp_path / "start.json").write_text(json.dumps(content | change))
    with pytest.raises(InputError, match=r"start\.json: damaged"):
        remembered(tmp_path, Compress())
