"""Compressions that share a budget out by the variance of feature maps."""

from __future__ import annotations

from pathlib import Path

import pytest

from octrim.cli import main
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
