"""The leaderboard's pure parts: names and commands of rows, which rows nobody beats, the table, and results that several processes write."""

from __future__ import annotations

import json
import shlex
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from benchmarks.leaderboard import CUTS, DATA, RECIPES, RESULTS, adopt, command, folder_name, keep_result, parts, read_results, rows, shown
from benchmarks.leaderboard_page import SHIPPED, Entry, best_of, entries, page, shipped
from octrim.cli import parse
from octrim.commands import Compress, Train
from octrim.report.neighbours import leaderboard

ROW = {"mAP50-95": 0.5, "mAP50": 0.75, "mAP50 interval": [0.7, 0.8], "parameters": 34_280, "macs": 42_000_000, "hours": 0.25, "epochs": 100}
ROW |= {"commit": "abc1234", "command": "octrim train"}


@pytest.mark.parametrize("name", rows())
def test_every_row_has_a_folder_and_a_command_that_octrim_takes(name: str) -> None:
    data, _, recipe, seed = parts(name)
    config: Any = parse(shlex.split(shown(name))[1:])
    assert isinstance(config, Compress if recipe in CUTS else Train)
    assert (config.data, config.imgsz, config.seed) == (data, (DATA[data],), seed)
    assert "/" not in folder_name(name) and len({folder_name(other) for other in rows()}) == len(rows())


def test_what_the_recipes_mean() -> None:
    config: Any = parse(command("bccd/yolov5n 1:8/scratch/3", "DATA", "fresh.safetensors"))
    assert (config.weights, config.epochs, config.batch, config.nominal_batch, config.lr0, config.noval) == (
        "fresh.safetensors",
        100,
        4,
        4,
        0.1,
        True,
    )
    assert (config.seed, config.ema, config.optimizer) == (3, "auto", "Muon")
    config = parse(command("pong/yolov5n 1:4/best/0", "DATA", "WHOLE"))
    assert (config.keep, config.preset, config.train_epochs, config.weights, config.imgsz) == ("1/4", "best", 0, "WHOLE", (256,))
    config = parse(command("bccd/picodet/scratch/0", "DATA", "picodet.yaml"))
    assert (config.cfg, config.weights) == ("picodet.yaml", None)


@pytest.mark.parametrize(
    "name",
    [
        "bccd/yolov5n/whole",
        "x/yolov5n/whole/0",
        "bccd/x/scratch/0",
        "bccd/yolov5n/fast/0",
        "bccd/yolov5n 1:8/quick/0",
        "bccd/picodet/best/0",
        "bccd/yolov5n/whole/a",
    ],
)
def test_names_that_are_no_rows(name: str) -> None:
    with pytest.raises(ValueError, match="expected|invalid literal|unpack"):
        parts(name)


def entry(score: float, **ms: float) -> Entry:
    return Entry("bccd", "net", "scratch", ({**ROW, "mAP50-95": score},), ms)


def test_which_rows_nobody_beats() -> None:
    fast, slow, worse, untimed = entry(0.4, openvino=1), entry(0.6, openvino=3), entry(0.35, openvino=2), entry(0.9)
    twins = entry(0.6, openvino=3)
    assert best_of([slow, worse, fast, untimed], "openvino") == [slow, fast]
    assert best_of([slow, twins], "openvino") == [slow, twins]  # equal rows do not beat each other
    assert best_of([slow, fast], "c") == []


def test_best_rows_are_those_that_brute_force_finds() -> None:
    found = [entry(score / 10, c=ms) for score, ms in product(range(1, 4), range(1, 4))]
    expected = [
        one
        for one in found
        if not any((o.score > one.score and o.ms["c"] <= one.ms["c"]) or (o.score >= one.score and o.ms["c"] < one.ms["c"]) for o in found)
    ]
    assert best_of(found, "c") == expected and [(one.score, one.ms["c"]) for one in expected] == [(0.3, 1)]


def test_seeds_are_averaged_with_their_range() -> None:
    results = {f"bccd/yolov5n 1:8/scratch/{seed}": {**ROW, "mAP50-95": score, "ms c": 0.9} for seed, score in enumerate((0.5, 0.53, 0.54))}
    results["pong/yolov5n/whole/0"] = ROW
    found = entries(results)
    assert [(one.data, one.network, len(one.seeds)) for one in found] == [("bccd", "yolov5n 1/8", 3), ("pong", "yolov5n", 1)]
    assert found[0].score == pytest.approx(1.57 / 3) and found[0].ms == {"c": pytest.approx(0.9)}
    text = page(results)
    assert (
        "| **yolov5n 1/8** | scratch | 100 | 0.523 (0.500 to 0.540, 3 seeds) | 0.750 (0.700 to 0.800) |  | 0.90 | 34,280 | 42 | 0.25 | abc1234 |"
        in text
    )
    assert "## bccd" in text and "## pong" in text and "## carla" not in text and "leaderboard-bccd.png" not in text


def test_results_are_added_to_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    assert read_results(path) == {}
    keep_result(path, "b", {"x": 1})
    keep_result(path, "a", {"x": 2})
    keep_result(path, "b", {"ms c": 3.0})
    assert read_results(path) == {"a": {"x": 2}, "b": {"x": 1, "ms c": 3.0}} and list(read_results(path)) == ["a", "b"]


def test_the_committed_results_are_rows_and_the_page_is_theirs() -> None:
    results = read_results(RESULTS)
    for name, row in results.items():
        _, _, recipe, _ = parts(name)
        assert set(ROW) <= set(row) and row["command"] == shown(name) and recipe in RECIPES
    assert (RESULTS.parents[1] / "docs" / "leaderboard.md").read_text() == page(results)
    assert SHIPPED.read_text() == shipped(results), "python benchmarks/leaderboard.py page makes it"
    found = {(row.data, row.network, row.recipe): row for row in leaderboard()}
    assert set(found) == {(data, network.replace(":", "/"), recipe) for data, network, recipe, _ in map(parts, results)}
    for (data, network, recipe), row in found.items():
        scores = [values["mAP50-95"] for name, values in results.items() if name.startswith(f"{data}/{network.replace('/', ':')}/{recipe}/")]
        assert row.seeds == len(scores) and row.map == pytest.approx(sum(scores) / len(scores), abs=1e-4)


def test_metrics_of_another_than_the_last_epoch_are_not_taken(tmp_path: Path) -> None:
    import argparse
    from dataclasses import replace

    from octrim.network.initialize import fresh_model

    model = fresh_model("yolov5n", classes=1, names=("a",))
    for name, epoch in (("best", 3), ("last", 4)):
        replace(model, lineage=({"action": "train", "epoch": epoch},)).save(tmp_path / f"{name}.safetensors")
    metrics = {"mAP50-95": 0.5, "mAP50": 0.75, "interval": {"mAP50": [0.7, 0.8]}, "weights": "best.safetensors"}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "results.csv").write_text("epoch\n0\n1\n2\n3\n")
    (tmp_path / "times.csv").write_text("epoch,train_s,val_s,images_per_s\n0,900,0,1\n1,1800,900,1\n")
    options = argparse.Namespace(run=tmp_path, row="bccd/yolov5n/whole/0", commit="abc", out=tmp_path / "out", results=tmp_path / "results.json")
    with pytest.raises(ValueError, match="not of the last epoch"):
        adopt(options)
    (tmp_path / "metrics.json").write_text(json.dumps(metrics | {"weights": "last.safetensors"}))
    adopt(options)
    row = read_results(options.results)["bccd/yolov5n/whole/0"]
    assert (row["mAP50-95"], row["hours"], row["epochs"], row["commit"]) == (0.5, 1.0, 2, "abc")
    assert (options.out / "bccd-yolov5n-whole-0" / "train" / "metrics.json").is_file()
