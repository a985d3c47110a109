"""Compressions that share a budget out by the variance of feature maps."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from octrim.cli import main
from octrim.compression.options import Compression
from octrim.compression.planning import planned, with_macs
from octrim.compression.presets import resolved
from octrim.data.open import open_labelled
from octrim.data.pictures import network_input, read_picture
from octrim.network.adapt import with_activation
from octrim.network.cost import network_cost
from octrim.network.dropping import rows_to_drop, without_rows
from octrim.network.loading import load
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.pruning.spectra import by_variance, held_variance
from tests.compression.running import COMMON, arguments, summary
from tests.networks import tiny_model, variant

pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")


@pytest.mark.slow
@pytest.mark.parametrize(
    "cut",
    [
        ["--cut-epochs", "1"],
        ["--cut-epochs", "0", "--drop", "model.2.m"],
        ["--cut-epochs", "0", "--cut-steps", "2", "--step-epochs", "1"],
        ["--cut-epochs", "1", "--activation", "relu"],
    ],
)
def test_a_compression_by_variance_costs_what_the_fraction_would(
    shapes: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: list[str]
) -> None:
    monkeypatch.setattr("octrim.compression.start.rehearse", lambda *_: None)
    command = [*arguments(shapes, weights, tmp_path), *cut, "--widths", "variance", "--train-epochs", "1", "--finetune-epochs", "2"]
    assert main(command) == 0
    folder = tmp_path / "run"
    whole, small = load(folder / "1-train/last.safetensors"), load(folder / "4-finetune/last.safetensors")
    drop, nearest = cut[3:] if "--drop" in cut else [], cut[1] == "1"
    uniform = plan(whole, "1/4", 8, nearest=nearest, drop=drop)
    assert COMMON[COMMON.index("--keep") + 1] == "1/4"
    assert 0.85 * uniform.after.macs < network_cost(small.network, 64).macs <= uniform.after.macs
    assert small.network != uniform.network
    assert summary(folder)["settings"]["widths"] == "variance"
    page = (folder / "report.html").read_text()
    assert not re.search(r"\{(&#|'|\")", re.sub(r"<(style|script).*?</\1>", "", page, flags=re.DOTALL))  # its keep-map is written for people
    if "--cut-steps" not in cut:  # in steps, every one is planned by the network of its time
        paths = open_labelled(str(shapes), "train", whole.names, "learn").paths
        left = without_rows(whole, rows_to_drop(whole.network, drop, ()))
        held = held_variance(left, [network_input(read_picture(path), 64, 64)[0] for path in paths])  # with the activation that was trained
        made = plan(whole, None, 2, by_variance("l2", held), budget=uniform.macs_budget(whole.network), nearest=nearest, drop=drop)
        assert small.network == (with_activation(prune(whole, made), "relu").network if "--activation" in cut else made.network)


def test_sparsity_training_does_not_know_the_variance(shapes: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments(shapes, weights, tmp_path), "--widths", "variance", "--sparsify-epochs", "1"]) == 2
    assert "--widths variance measures feature maps, and sparsity training sets channels to zero" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_multiples_of_8_do_not_cut_is_refused_before_anything_is_trained(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_model(0.5).save(tmp_path / "thin.safetensors")
    common = arguments(shapes, tmp_path / "thin.safetensors", tmp_path)
    for command in (common, ["finetune", *common[1 : common.index("--imgsz") + 2], "--keep", "1/2", "--align", "2"]):
        assert main([*command, "--widths", "variance"]) == 2
        error = capsys.readouterr().err
        assert (
            "nothing would be cut: every convolution keeps all of its channels; --widths variance counts the MACs of a fraction in multiples" in error
        )
        assert error.count("\n") == 1 and not (tmp_path / "run").exists()


@pytest.mark.parametrize(("align", "keep_map"), [(1, {}), (4, {"model.*": "3/8"}), (12, {}), (16, {"model.0": 1}), (32, {})])
@pytest.mark.parametrize("cut", [{"cut_epochs": 0, "cut_steps": 2}, {"cut_epochs": 2}])
def test_the_macs_of_a_fraction_can_be_met(align: int, keep_map: dict[str, Any], cut: dict[str, Any]) -> None:
    base, config = variant("yolov5n"), Compression(align=align, widths="variance", **cut)
    counted = with_macs(config, resolved(config), keep_map, base)
    assert counted.keep is None and counted.budget is not None and counted.budget.startswith("macs=0.")
    small = base
    for step in range(1, resolved(config).cut_steps + 1):
        small = prune(small, planned(counted, resolved(config), keep_map, small, base.network, step, "l2"))
    share = network_cost(small.network).macs / network_cost(base.network).macs
    assert 0.85 * float(counted.budget[5:]) < share <= float(counted.budget[5:])
    assert with_macs(replace(config, budget="params=0.2"), resolved(config), keep_map, base).budget == "params=0.2"
    plain = replace(config, widths="importance")
    assert with_macs(plain, resolved(plain), keep_map, base) == plain
