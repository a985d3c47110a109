"""Compressions that share a budget out by the variance of feature maps."""

from __future__ import annotations

from pathlib import Path

import pytest

from octrim.cli import main
from octrim.data.open import open_labelled
from octrim.data.pictures import network_input, read_picture
from octrim.network.cost import network_cost
from octrim.network.loading import load
from octrim.pruning.plan import plan
from octrim.pruning.spectra import by_variance, held_variance
from tests.compression.running import COMMON, arguments, summary

pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")


@pytest.mark.slow
@pytest.mark.parametrize("cut", [["--cut-epochs", "1"], ["--cut-epochs", "0"], ["--cut-epochs", "0", "--cut-steps", "2", "--step-epochs", "1"]])
def test_a_compression_by_variance_costs_what_the_fraction_would(
    shapes: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: list[str]
) -> None:
    monkeypatch.setattr("octrim.compression.start.rehearse", lambda *_: None)
    command = [*arguments(shapes, weights, tmp_path), *cut, "--widths", "variance", "--train-epochs", "1", "--finetune-epochs", "2"]
    assert main(command) == 0
    folder = tmp_path / "run"
    whole, small = load(folder / "1-train/last.safetensors"), load(folder / "4-finetune/last.safetensors")
    uniform = plan(whole, "1/4", 8, nearest=cut == ["--cut-epochs", "1"])
    assert COMMON[COMMON.index("--keep") + 1] == "1/4"
    assert 0.85 * uniform.after.macs < network_cost(small.network, 64).macs <= uniform.after.macs
    assert small.network != uniform.network
    assert summary(folder)["settings"]["widths"] == "variance"
    if "--cut-steps" not in cut:  # in steps, every one is planned by the network of its time
        paths = open_labelled(str(shapes), "train", whole.names, "learn").paths
        held = held_variance(whole, [network_input(read_picture(path), 64, 64)[0] for path in paths])
        criterion = by_variance("signal" if cut == ["--cut-epochs", "1"] else "group-l2", held)
        made = plan(whole, None, 2, criterion, budget=uniform.macs_budget(whole.network), nearest=cut == ["--cut-epochs", "1"])
        assert small.network == made.network


def test_sparsity_training_does_not_know_the_variance(shapes: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments(shapes, weights, tmp_path), "--widths", "variance", "--sparsify-epochs", "1"]) == 2
    assert "--widths variance measures feature maps, and sparsity training sets channels to zero" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
