"""Channels that groups want by the variance of their feature maps."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings

from octrim.backends.numpy import NumpyOps
from octrim.cli import main
from octrim.errors import InputError
from octrim.network.cost import network_cost
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.network.rows import Network, Row, walk
from octrim.pruning import spectra
from octrim.pruning.budget import thinness
from octrim.pruning.labels import channel_labels
from octrim.pruning.plan import plan
from octrim.pruning.plan_files import read_keep_map
from octrim.pruning.spectra import by_variance, held_variance
from tests.networks import lively_model, random_networks, variant


def pictures(count: int, side: int = 64) -> list[np.ndarray]:
    generator = np.random.default_rng(5)
    return [generator.integers(0, 256, (side, side, 3), np.uint8) for _ in range(count)]


class _Kept(NumpyOps):
    """Keeps every map that a convolution or a sum gives."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.maps: dict[str, list[np.ndarray]] = {}

    def conv(self, row: Row, x: np.ndarray) -> np.ndarray:
        self.maps.setdefault(row.name, []).append(super().conv(row, x))
        return self.maps[row.name][-1]

    def add(self, row: Row, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        self.maps.setdefault(row.name, []).append(super().add(row, a, b))
        return self.maps[row.name][-1]


def shares_by_svd(maps: list[np.ndarray]) -> np.ndarray:
    """The same shares, from singular values of all positions at once."""
    values = np.concatenate([m[0].reshape(m.shape[1], -1) for m in maps], 1).T.astype(np.float64)
    values -= values.mean(0)
    deviation = values.std(0)
    values = np.where(deviation > 1e-6, values / np.maximum(deviation, 1e-6), 0)
    squares = np.linalg.svd(values, compute_uv=False) ** 2
    return np.cumsum(squares) / squares.sum()


def test_shares_are_those_of_singular_values() -> None:
    model, some = variant("yolov5n"), pictures(2)
    held, ops = held_variance(model, some), _Kept(model)
    for picture in some:
        walk(model.network, ops, picture[None].transpose(0, 3, 1, 2).astype(np.float32) / 255)
    one = held["model.0"]
    assert np.abs(one - shares_by_svd(ops.maps["model.0"])).max() < 1e-6
    coupled = ("model.4.cv1", "model.4.m.0.cv2", "model.4.m.0.add", "model.4.m.1.cv2", "model.4.m.1.add")
    joined = np.mean([shares_by_svd(ops.maps[name]) for name in coupled], 0)
    assert np.abs(held["model.4.cv1"] - joined).max() < 1e-6
    assert set(held) == {group.name for group in channel_labels(model.network).groups}


@settings(max_examples=25)
@given(random_networks())
def test_shares_of_any_network_rise_to_1_and_give_a_plan(network: Network) -> None:
    model = lively_model(network)
    held = held_variance(model, pictures(1))
    for group in channel_labels(network).groups:
        if group.name in held:
            shares = held[group.name]
            assert len(shares) == len(group) and shares[-1] == pytest.approx(1)
            assert (np.diff(shares) > -1e-12).all() and (shares >= np.arange(1, len(shares) + 1) / len(shares) - 1e-9).all()
    made = plan(model, "1/2", 1, by_variance("l1", held), image_size=(64, 64))
    assert made.settings["criterion"] == "l1, variance"


def test_the_criterion_says_which_channels_go_and_the_variance_how_many() -> None:
    model = variant("yolov5n")
    held = held_variance(model, pictures(2))
    labels = channel_labels(model.network)
    scores = by_variance("l1", held)(model, labels, 0)
    ranked = plan(model, "1/2", 1, "l1", image_size=(64, 64))
    mixed = plan(model, "1/2", 1, by_variance("l1", held), image_size=(64, 64))
    for group in labels.groups:
        assert np.abs(thinness(np.sort(scores[group.labels])[::-1]) - 1 / held[group.name]).max() < 1e-6
    assert all(np.array_equal(ranked.kept[name], mixed.kept[name]) for name in ranked.kept)


def test_dead_maps_count_all_channels_alike() -> None:
    model = variant("yolov5n")
    dead = {name: tensor * 0 if name in ("model.3.bn.weight", "model.3.bn.bias") else tensor for name, tensor in model.tensors.items()}
    held = held_variance(Model(model.network, dead, model.names, model.image_size, ()), pictures(1))
    assert np.allclose(held["model.3"], np.arange(1, 65) / 64)


@pytest.mark.parametrize("value", [0.7, 31.829, 61.829])
def test_channels_that_are_constant_hold_nothing(value: float) -> None:
    """Whatever their value is, of which sums of squares have rounding errors; the other half of the channels holds all of the variance."""
    model = variant("yolov5n")
    scales, offsets = (model.tensors[f"model.0.bn.{part}"].copy() for part in ("weight", "bias"))
    scales[:8], offsets[:8] = 0, value
    tensors = {**model.tensors, "model.0.bn.weight": scales, "model.0.bn.bias": offsets}
    held = held_variance(replace(model, tensors=tensors), pictures(3))
    assert held["model.0"][6] < 1 and held["model.0"][7] == pytest.approx(1, abs=1e-12)


def test_maps_that_overflow() -> None:
    model = variant("yolov5n")
    tensors = {**model.tensors, "model.2.cv1.bn.bias": np.full(16, 3e38, np.float32)}
    with np.errstate(all="ignore"), pytest.raises(InputError, match=r"^model\.2\.m\.0\.cv1 overflows on a picture"):
        held_variance(replace(model, tensors=tensors), pictures(1))


def test_no_pictures() -> None:
    with pytest.raises(InputError, match="no picture can be read"):
        held_variance(variant("yolov5n"), [])


@pytest.fixture
def camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command that plans a small network by pictures without labels, one of them no picture, in the folder of the test."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "camera").mkdir()
    for index, picture in enumerate(pictures(2)):
        cv2.imwrite(f"camera/{index}.png", picture)
    Path("camera/no.png").write_text("no picture")
    variant("yolov5n").save(tmp_path / "w.safetensors")
    return ["prune", "--weights", "w.safetensors", "--imgsz", "64", "--widths", "variance", "--data", "camera"]


def test_prune_writes_the_shape_as_a_keep_map(camera: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*camera, "--budget", "macs=0.2"]) == 0
    told = capsys.readouterr().out.replace("\n", " ")
    shape = "--train-epochs 0 --keep 1 --keep-map runs/prune/exp/keep-map.json --align 4"
    assert f"octrim compress --data DATA --weights w.safetensors {shape}" in told  # these pictures have no labels to train on
    assert "left out: camera/no.png" in told
    keep_map = read_keep_map("runs/prune/exp/keep-map.json")
    for nearest in (False, True):
        again = plan(load("w.safetensors"), 1, 4, keep_map=keep_map, image_size=(64, 64), nearest=nearest)
        assert again.network == load("runs/prune/exp/model.safetensors").network
    settings = json.loads(Path("runs/prune/exp/plan.json").read_text())["settings"]
    assert (settings["criterion"], settings["budget"]) == ("signal, variance", "macs=0.2")


@pytest.mark.parametrize("weights", [True, False])
def test_prune_tells_the_command_that_trains_the_shape(camera: list[str], capsys: pytest.CaptureFixture[str], weights: bool) -> None:
    """Also where rows are dropped, names have spaces, and there are no weights."""
    Path("camera").rename("my camera")
    command = [*camera[:-1], "my camera", "--budget", "macs=0.2", "--drop", "model.4.m", "--levels", "8", "16", "--name", "a b"]
    assert main(command if weights else [word for word in command if word not in ("--weights", "w.safetensors")] + ["--cfg", "yolov5n"]) == 0
    told = capsys.readouterr().out.replace("\n", " ")
    words = shlex.split(told.partition("cut while it trains: ")[2].partition("pruned model")[0])
    source = ["--weights", "w.safetensors", "--train-epochs", "0"] if weights else ["--cfg", "yolov5n"]
    shape = ["--keep", "1", "--keep-map", "runs/prune/a b/keep-map.json", "--align", "4", "--drop", "model.4.m", "--levels", "8", "16"]
    assert words == ["octrim", "compress", "--data", "DATA", *source, *shape, "--imgsz", "64"]


def test_prune_tells_labelled_data_again_and_nothing_where_nothing_is_cut(camera: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "val"):
        for folder in ("images", "labels"):
            Path("set", folder, split).mkdir(parents=True)
        Path("camera/0.png" if split == "train" else "camera/1.png").rename(f"set/images/{split}/0.png")
        Path(f"set/labels/{split}/0.txt").write_text("0 .5 .5 .5 .5\n")
    command = [*camera[:-1], "set", "--dry-run"]
    assert main([*command, "--budget", "macs=0.2"]) == 0
    assert "octrim compress --data set --weights w.safetensors" in capsys.readouterr().out.replace("\n", " ")
    assert main([*command, "--keep", "1"]) == 0
    assert "octrim compress" not in capsys.readouterr().out
    Path("set/labels/val/0.txt").write_text("")  # nothing to measure, which compress refuses
    assert main([*command, "--budget", "macs=0.2"]) == 0
    assert "octrim compress --data DATA" in capsys.readouterr().out


def test_a_fraction_is_that_of_the_macs_that_it_leaves_everywhere(camera: list[str]) -> None:
    """In multiples of 8, whatever the counts of the plan are multiples of."""
    assert main([*camera, "--keep", "1/4"]) == 0
    model, small = load("w.safetensors"), load("runs/prune/exp/model.safetensors")
    uniform = plan(model, "1/4", 8, image_size=(64, 64))
    assert 0.9 * uniform.after.macs < network_cost(small.network, 64).macs <= uniform.after.macs
    assert small.network != uniform.network
    budget = uniform.macs_budget(model.network)
    assert float(budget.removeprefix("macs=")) == pytest.approx(uniform.after.macs / uniform.before.macs, rel=1e-6)
    assert plan(model, None, 4, "l1", budget=budget, image_size=(64, 64)).after.macs <= uniform.after.macs


@pytest.mark.parametrize(
    ("options", "align"),
    [(["--align", "16", "--keep", "1/8"], 16), (["--align", "12"], 12), (["--align", "4", "--keep-map", "map.json"], 4), (["--align", "1"], 8)],
)
def test_the_macs_of_a_fraction_are_never_out_of_reach(camera: list[str], options: list[str], align: int) -> None:
    """Those of multiples of 8 may be, where counts have to be multiples of more, or a keep-map rounds to finer ones."""
    Path("map.json").write_text('{"*": "3/8"}')
    assert main([*camera, *options]) == 0
    model, small = load("w.safetensors"), load("runs/prune/exp/model.safetensors")
    uniform = plan(model, "1/8", align, keep_map={"*": "3/8"} if "map.json" in options else None, image_size=(64, 64))
    assert network_cost(small.network, 64).macs <= uniform.after.macs


def test_rows_are_chosen_in_the_multiples_that_the_plan_is_made_in(camera: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")
    asked: list[Any] = []

    def stop(*arguments: Any) -> None:
        asked.append(arguments[5]((), (), "signal").settings["align"])
        raise InputError("enough")

    monkeypatch.setattr("octrim.training.labelled.open_in_classes", lambda *_, **__: (None, []))
    monkeypatch.setattr("octrim.training.dropping.choose_rows", stop)
    assert main([*camera, "--budget", "macs=0.2", "--levels", "auto"]) == 2
    assert asked == [4]


def test_variance_needs_pictures(camera: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(camera[:-2]) == 2
    assert "--widths variance needs --data: pictures on which the variance of feature maps is measured" in capsys.readouterr().err
    assert main([*camera, "--keep", "live"]) == 2
    assert "--keep live says by itself how many channels each group keeps" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main([*camera[:-1], "empty", "--budget", "macs=0.2"]) == 2
    (tmp_path / "empty/no.png").write_text("no picture")
    assert main([*camera[:-1], "empty", "--budget", "macs=0.2"]) == 2
    assert "none of the 1 pictures can be read" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("enough", "used"), [(1e9, [0, 1, 3, 5, 7]), (1e12, list(range(9))), (1.0, [0, 4]), (4.2e9, [0, 1, 2, 3, 4, 5, 6, 7])])
def test_a_large_network_is_measured_on_fewer_pictures(enough: float, used: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A YOLOv5n at 320 px has 0.5 GMACs: 1 GMACs are 2 of at least 2 pictures, or 5 of at least 5, spread evenly; 4.2 GMACs are 8."""
    paths = [str(tmp_path / f"{number}.png") for number in range(9)]
    for number, path in enumerate(paths):
        cv2.imwrite(path, np.full((8, 8, 3), 10 * number, np.uint8))
    seen: list[float] = []
    monkeypatch.setattr(spectra, "held_variance", lambda _, some: seen.extend(float(one.min()) for one in some) or {})
    monkeypatch.setattr(spectra, "_ENOUGH_MACS", enough)
    monkeypatch.setattr(spectra, "_LEAST_PICTURES", 5 if enough == 1e9 else 2)
    spectra.measured_by_variance("l1", variant("yolov5n"), paths, (320, 320))
    assert seen == [10 * number for number in used]
