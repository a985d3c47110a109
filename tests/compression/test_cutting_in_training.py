"""Compressions whose channels go within fine-tuning."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path

import pytest

from octrim.cli import main
from octrim.data.loader import TrainingBatch
from octrim.network.cost import network_cost
from octrim.network.loading import load
from octrim.training.checkpoint import State
from octrim.training.record import Record
from tests.compression.running import GRADUAL, arguments, summary, untimed, without_keep
from tests.training.conftest import draw_shapes


@pytest.fixture(scope="module")
def gradual(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> tuple[Path, Path]:
    """An undisturbed run whose channels go within fine-tuning, and its data."""
    root = tmp_path_factory.mktemp("gradual")
    data = draw_shapes(root / "shapes", {"train": 12, "val": 4})
    assert main(without_keep(arguments(data, weights, root, *GRADUAL))) == 0
    return root / "run", data


@pytest.mark.slow
def test_channels_that_go_within_fine_tuning(gradual: tuple[Path, Path]) -> None:
    folder, _ = gradual
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["1-train", "4-finetune", "5-export", "6-bench"]
    found, small = summary(folder), load(folder / "4-finetune" / "last.safetensors")
    whole = load(folder / "1-train" / "last.safetensors")
    before, after = (network_cost(model.network, 64) for model in (whole, small))
    assert list(found["stages"]) == ["original", "finetuned"]
    assert (found["stages"]["finetuned"]["macs"], found["stages"]["finetuned"]["epochs"]) == (after.macs, 4)
    assert after.channels <= 0.7 * before.channels
    counts = {row.name: (len(kept), row.channels) for row, kept in zip(whole.network.convs, _kept(folder).values(), strict=True)}
    assert counts["model.0"][0] == counts["model.0"][1]
    for row in small.network.convs:
        assert row.channels == counts[row.name][0]
        assert row.channels == counts[row.name][1] or row.channels % 2 == 0
    assert found["cuts"] == [{"criterion": "taylor", "repairs": ["merge"], "channels": after.channels}]
    assert found["epochs"] == {"train": 1, "sparsify": 0, "between_cuts": 0, "cutting": 2, "finetune": 3, "all": 4}
    assert [step["action"] for step in small.lineage][-4:] == ["activation", "prune", "merge", "finetune"]
    assert ({row.activation for row in whole.network.convs}, found["settings"]["activation"]) == ({"silu", None}, "relu")
    assert {row.activation for row in small.network.convs} == {"relu", None}
    assert "activation of the fine-tuned network: relu" in (folder / "summary.txt").read_text()
    with (folder / "4-finetune" / "results.csv").open() as file:
        left = [float(row["cut/macs"]) for row in csv.DictReader(file)]
    assert left == sorted(left, reverse=True)
    assert left[-1] == pytest.approx(after.macs / before.macs, rel=1e-5)
    report = (folder / "report.html").read_text()
    assert "Channels and MACs that are left" in report
    assert "Channels ranked by taylor; repairs: merge" in report
    assert "activation relu" in report


def _kept(folder: Path) -> dict[str, list[int]]:
    """Channels that are left of every convolution, by the plan that the fine-tuning has written."""
    content = json.loads((folder / "4-finetune" / "plan.json").read_text())
    return {name: conv["kept"] for name, conv in content["convs"].items()}


@pytest.mark.slow
def test_a_compression_stopped_while_channels_go_ends_the_same(
    gradual: tuple[Path, Path], weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, data = gradual
    keep = Record.batch

    def stopping(self: Record, epoch: int, batch: TrainingBatch, side: int, state: State) -> None:
        keep(self, epoch, batch, side, state)
        if (self.action, epoch, state.batch) == ("finetune", 1, 2):
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Record, "batch", stopping)
        assert main(without_keep(arguments(data, weights, tmp_path, *GRADUAL))) == 130
    assert main(["compress", "--resume", str(tmp_path / "run")]) == 0
    assert untimed(tmp_path / "run") == untimed(folder)
    assert (tmp_path / "run/4-finetune/last.safetensors").read_bytes() == (folder / "4-finetune/last.safetensors").read_bytes()
    assert (tmp_path / "run/4-finetune/plan.json").read_bytes() == (folder / "4-finetune/plan.json").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cut-epochs", "3", "--finetune-epochs", "2"], "cut-epochs is 3, more than the 2 epochs of fine-tuning"),
        (["--cut-epochs", "1", "--cut-steps", "2"], "cut either within fine-tuning or in steps before it"),
    ],
)
def test_what_is_refused_of_cutting_while_training(
    shapes: Path, weights: Path, tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(shapes, weights, tmp_path / "runs", *options)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
