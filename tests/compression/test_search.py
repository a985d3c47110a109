"""Search among shapes that cost the same: the shapes, the rounds by hand, a whole compression that is stopped in between."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import pytest

from octrim.cli import main
from octrim.compression import pipeline
from octrim.compression.job import Job
from octrim.compression.options import Compression
from octrim.compression.presets import Preset, resolved
from octrim.compression.shapes import Shape, bottlenecks, equal_shapes
from octrim.errors import InputError
from octrim.network.cost import network_cost
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.network.yolov5 import yolov5_network
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.stages import BENCH, EXPORT
from tests.latency.analytic import exact_table, exact_time
from tests.networks import lively_model, variant
from tests.pruning.test_prune import COUPLED
from tests.training.conftest import draw_shapes, small_weights  # noqa: F401 (a fixture)

pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")

from octrim.training.record import Record


def planned(shape: Shape, base: Model, config: Compression) -> Model:
    options: dict[str, Any] = {"budget": shape.budget, "drop": shape.drop, "levels": shape.levels, "nearest": True}
    return prune(base, plan(base, shape.keep, config.align, "l2", config.exclude, shape.keep_map, config.seed, **options))


@pytest.mark.parametrize(
    "options", [{"keep": "1/4"}, {"budget": "params=0.2", "align": 4}, {"keep": "1/2", "levels": (8, 16), "exclude": ("model.0",)}]
)
@pytest.mark.slow
def test_shapes_differ_and_cost_the_same(options: dict[str, Any]) -> None:
    base = replace(variant("yolov5n"), image_size=320)
    config = Compression(search=8, **options)
    shapes = equal_shapes(config, {}, base, 8)
    networks = [planned(shape, base, config).network for shape in shapes]
    (by_variance,) = (shape for shape in shapes if shape.widths == "variance")  # its maps are not measured here
    assert (by_variance.name, by_variance.keep) == ("by variance", None)
    others = [network for shape, network in zip(shapes, networks, strict=True) if shape is not by_variance]
    assert len({json.dumps(network.to_json()) for network in others}) == 7
    whole = network_cost(base.network, 320)
    what = "parameters" if "budget" in options else "macs"
    limit = 0.2 * whole.parameters if "budget" in options else network_cost(networks[0], 320).macs
    for shape, network in zip(shapes, networks, strict=True):
        cost = network_cost(network, 320)
        assert (cost.macs, cost.parameters) == (shape.macs, shape.parameters)
        assert 0.93 * limit <= getattr(cost, what) <= limit * (1 + 1e-8), shape.name
        assert set(network.strides) <= set(config.levels or (8, 16, 32))
    assert (shapes[0].name, shapes[0].keep, shapes[0].budget) == ("as asked", options.get("keep"), options.get("budget"))
    names = [shape.name for shape in shapes]
    assert {"wide and shallow"} <= set(names)
    coarsest = f"without stride {max(config.levels or (8, 16, 32))}"
    assert any(name.startswith(coarsest) for name in names)
    shallow = networks[names.index("wide and shallow")]
    assert not any(".m." in row.name and not row.name.startswith(("model.9.", "model.24.")) for row in shallow.rows)
    wide = {row.name: row.channels for row in shallow.convs}
    if "keep" in options:
        assert sum(wide.values()) > sum(row.channels for row in networks[0].convs if row.name in wide)
    assert equal_shapes(config, {}, base, 8) == shapes
    sparse = equal_shapes(replace(config, sparsify_epochs=1), {}, base, 2)  # sparsity training has chosen channels by importance
    assert [(shape.name, shape.widths) for shape in sparse] == [("as asked", "importance"), (names[2], "importance")]
    asked = equal_shapes(config, {}, base, 2, widths="variance")
    assert [(shape.name, shape.widths) for shape in asked] == [("as asked", "variance"), ("by importance", "importance")]


@pytest.mark.slow
def test_shapes_that_take_the_same_time() -> None:
    """A budget of milliseconds, on a machine whose times are known exactly and where every row costs something."""
    base = replace(variant("yolov5n"), image_size=64)
    table = exact_table(base.network, 64, 0.001)
    shapes = equal_shapes(Compression(search=4, budget="latency=1/3"), {}, base, 4, table)
    limit = float(table.limit("1/3", base.network))
    for shape in shapes:
        assert shape.budget == "latency=1/3"
        options: dict[str, Any] = {"budget": shape.budget, "drop": shape.drop, "levels": shape.levels, "nearest": True, "latency": table}
        made = plan(base, shape.keep, "auto", "l2", (), shape.keep_map, 0, (64, 64), **options)
        assert 0.85 * limit <= exact_time(made.network, 64, 0.001) <= limit * (1 + 1e-9), shape.name
    assert any(shape.drop for shape in shapes)
    assert any(shape.levels for shape in shapes)


def test_what_is_left_out_for_shallow_shapes() -> None:
    """Bottlenecks with and without an addition; not the three poolings of the SPPF, nor a convolution by itself."""
    found = bottlenecks(yolov5_network("yolov5n", classes=3))
    assert found == [
        *("model.2.m", "model.4.m.0", "model.4.m.1", "model.6.m.0", "model.6.m.1", "model.6.m.2", "model.8.m"),
        *("model.13.m", "model.17.m", "model.20.m", "model.23.m"),
    ]


def test_more_shapes_than_there_are() -> None:
    """Two groups of four channels, one level, no bottleneck."""
    base = lively_model(COUPLED)
    with pytest.raises(InputError, match="search is 8; only [1-4] shapes of this network differ and cost the same"):
        equal_shapes(Compression(search=8, keep="1/2", align=1), {}, base, 8)


def test_rounds_by_hand() -> None:
    """7 shapes, 3 epochs: 7 x 3, then 3 x 6; then the best is known. 8 shapes: three rounds."""
    assert Preset(1, 0, 60, search=7, search_epochs=3).rounds() == [(7, 3), (3, 6)]
    assert Preset(1, 0, 60, search=8, search_epochs=3).rounds() == [(8, 3), (4, 6), (2, 12)]
    assert Preset(1, 0, 60).rounds() == []
    assert resolved(Compression(search=4, finetune_epochs=100)).search_epochs == 5
    assert resolved(Compression(search=4, finetune_epochs=3)).search_epochs == 2
    assert [stage.title for stage in resolved(Compression(search=2)).stages(False)] == ["train", "search", "finetune", "export", "bench"]


COMMON = ["--imgsz", "64", "--batch", "4", "--finetune-batch", "4", "--nominal-batch", "4", "--workers", "0", "--iterations-bench", "2"]
EPOCHS = ["--train-epochs", "0", "--finetune-epochs", "1", "--cut-epochs", "1", "--search", "4", "--search-epochs", "1"]


def _known(job: Job, folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    folder.mkdir()
    return dict(content)


def untimed(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "summary.json").read_text())
    return {name: value for name, value in found.items() if name != "times"}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the rehearsal of the exports, which takes longer than such trainings."""
    monkeypatch.setattr("octrim.compression.start.rehearse", lambda *_: None)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_search_finds_a_shape_and_goes_on_where_it_was_stopped(
    small_weights: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = draw_shapes(tmp_path / "shapes", {"train": 8, "val": 4})
    command = ["compress", "--weights", str(small_weights), "--data", str(data), "--project", str(tmp_path), *COMMON, *EPOCHS]
    command += ["--keep", "1/2", "--align", "2"]
    assert main([*command, "--name", "whole"]) == 0
    whole = tmp_path / "whole"
    found = untimed(whole)["search"]
    assert len(found["shapes"]) == 4
    assert sorted(len(shape["tries"]) for shape in found["shapes"]) == [1, 1, 2, 2]
    assert sorted(path.name for path in (whole / "search").glob("round*")) == [
        *(f"round1-{number}" for number in range(1, 5)),
        *(f"round2-{number}" for number, shape in enumerate(found["shapes"], 1) if len(shape["tries"]) == 2),
    ]
    first = [shape["tries"][0]["mAP50-95"] for shape in found["shapes"]]
    best = sorted(range(4), key=lambda place: -first[place])[:2]
    assert {place for place in range(4) if len(found["shapes"][place]["tries"]) == 2} == set(best)
    assert found["chosen"] == max(sorted(best), key=lambda place: found["shapes"][place]["tries"][1]["mAP50-95"])
    assert [shape["tries"][-1]["epochs"] for shape in found["shapes"] if len(shape["tries"]) == 2] == [2, 2]
    chosen, small = found["shapes"][found["chosen"]], load(whole / "4-finetune/last.safetensors")
    assert small.network.strides == tuple(chosen["levels"] or load(small_weights).network.strides)
    settings = next(step for step in small.lineage[::-1] if step["action"] == "prune")
    if chosen["widths"] == "variance":  # the counts that were planned by it
        assert (settings["keep"], settings["planned_by"]) == ("1", f"variance of feature maps, {chosen['budget']}")
    else:
        assert (settings["keep"], settings["budget"]) == (chosen["keep"], chosen["budget"])
    macs = [shape["tries"][0]["macs"] for shape in found["shapes"]]
    assert max(macs) <= 1.02 * macs[0]
    assert cv2.imread(str(whole / "search/search.png")) is not None
    page = (whole / "report.html").read_text()
    assert "Shapes that were tried" in page and "by the variance of feature maps" in page
    assert all(shape["name"] in page for shape in found["shapes"])

    for stage in (EXPORT, BENCH):  # exported and timed once is enough
        known = json.loads((whole / stage.folder / "stage.json").read_text())
        monkeypatch.setitem(pipeline._WORK, stage, partial(_known, content=known))
    batch = Record.batch
    seen: list[int] = []

    def stopping(self: Record, *arguments: Any) -> None:
        batch(self, *arguments)
        seen.append(1)
        if len(seen) == 7:  # two batches an epoch: in the fourth trial
            raise KeyboardInterrupt

    monkeypatch.setattr(Record, "batch", stopping)
    assert main([*command, "--name", "stopped"]) == 130
    monkeypatch.setattr(Record, "batch", batch)
    stopped = tmp_path / "stopped"
    assert len(list((stopped / "search").glob("round1-*/stage.json"))) == 3
    assert main(["compress", "--resume", str(stopped), "--workers", "0"]) == 0
    assert untimed(stopped)["search"] == found
    assert untimed(stopped)["stages"]["finetuned"] == untimed(whole)["stages"]["finetuned"]
    summary = (stopped / "summary.json").read_bytes()
    assert main(["compress", "--resume", str(stopped)]) == 0  # all is done: the same summary again
    assert (stopped / "summary.json").read_bytes() == summary

    # Settings are those that were asked for, whatever shape was chosen; a run that is done and shown again knows no others.
    (by_variance,) = (place for place, shape in enumerate(found["shapes"]) if shape["widths"] == "variance")
    result = json.loads((stopped / "search/stage.json").read_text())
    result["search"]["chosen"] = by_variance
    (stopped / "search/stage.json").write_text(json.dumps(result))
    shutil.rmtree(stopped / BENCH.folder)
    assert main(["compress", "--resume", str(stopped)]) == 0
    assert untimed(stopped)["settings"] == json.loads(summary)["settings"]


def test_what_is_refused(small_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    data = draw_shapes(tmp_path / "shapes", {"train": 2, "val": 2})
    command = ["compress", "--weights", str(small_weights), "--data", str(data), "--project", str(tmp_path), *COMMON]
    for more, message in [
        (["--search", "1"], "--search is 1, expected 2 to 64"),
        (["--search", "4", "--search-epochs", "0"], "--search-epochs is 0, expected 1"),
    ]:
        assert main([*command, "--name", "run", *more]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
