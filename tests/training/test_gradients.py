"""Gradients of the loss by batch norm, against differences of a loss reckoned in float64."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from octrim.backends.numpy import NumpyOps
from octrim.cli import main
from octrim.data.dataset import Dataset
from octrim.data.open import open_dataset
from octrim.errors import InputError
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.network.rows import walk
from octrim.pruning.plan import plan
from octrim.training.gradients import batch_gradients
from octrim.training.hyper import Hyperparameters
from octrim.training.labelled import in_network_classes
from tests.networks import lively_tensors
from tests.training.conftest import draw_shapes
from tests.training.test_loss import reference_loss


@pytest.fixture
def lively(small_weights: Path) -> Model:
    small = load(small_weights)
    return dataclasses.replace(small, tensors=lively_tensors(small.network, 1), image_size=64)


@pytest.fixture
def pictures(tmp_path: Path) -> Dataset:
    """Of 64 x 64 pixels, so that nothing is scaled on the way."""
    return open_dataset(draw_shapes(tmp_path / "shapes", {"train": 5}, side=64), "train")


def unlabelled(dataset: Dataset) -> Dataset:
    nothing = {"boxes": dataset.boxes[:0], "labels": dataset.labels[:0], "crowd": dataset.crowd[:0]}
    return dataclasses.replace(dataset, **nothing, starts=np.zeros_like(dataset.starts))


# Of boxes and their objectness the loss holds alpha and the target, which depend on the network, for constants: no difference shows that.
CASES = {"classes": (Hyperparameters(box=0, obj=0), False), "objectness": (Hyperparameters(), True)}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_gradients_against_differences(lively: Model, pictures: Dataset, case: str) -> None:
    hyper, without_labels = CASES[case]
    dataset = unlabelled(pictures) if without_labels else pictures
    images = np.stack([cv2.imread(path)[:, :, ::-1].transpose(2, 0, 1) for path in dataset.paths]).astype(np.float64) / 255
    rows = []
    for index in range(len(dataset)):
        boxes, labels, _ = dataset.targets(index)
        rows += [[index, label, *((box[:2] + box[2:]) / 2 / 64), *((box[2:] - box[:2]) / 64)] for box, label in zip(boxes, labels, strict=True)]
    targets = np.asarray(rows).reshape(-1, 6)

    def loss(tensors: dict[str, np.ndarray], first: int, last: int) -> float:
        heads = walk(lively.network, NumpyOps(dataclasses.replace(lively, tensors=tensors), np.float64), images[first:last])
        own = targets[(targets[:, 0] >= first) & (targets[:, 0] < last)] - (first, 0, 0, 0, 0, 0)
        return float(reference_loss(heads, own, lively.network, hyper, 64).sum())

    found = batch_gradients(lively, dataset, batch=2, hyper=hyper)
    norms = [name for name in lively.tensors if name.endswith(("bn.weight", "bn.bias"))]
    assert len(found) == 3 and all(sorted(batch) == sorted(norms) for batch in found)
    generator = np.random.default_rng(0)
    for number, batch in enumerate(found):
        span = (2 * number, min(2 * number + 2, 5))
        for name in [*generator.choice(norms, 3, replace=False).tolist(), None]:  # one tensor at a time, then all together
            chosen = norms if name is None else [name]
            ends, moved = [], []
            direction = {key: generator.normal(size=lively.tensors[key].shape) for key in chosen}
            for step in (1e-3, -1e-3):
                moved.append({key: (lively.tensors[key] + step * direction[key]).astype(np.float32) for key in chosen})
                ends.append(loss({**lively.tensors, **moved[-1]}, *span))
            wanted = ends[0] - ends[1]
            steps = {key: moved[0][key].astype(np.float64) - moved[1][key] for key in chosen}  # as float32 has them
            reckoned = sum(float((batch[key] * steps[key]).sum()) for key in chosen)
            size = sum(float(np.linalg.norm(batch[key]) * np.linalg.norm(steps[key])) for key in chosen)
            assert size > 1e-9
            assert reckoned == pytest.approx(wanted, rel=2e-3, abs=2e-3 * size)


def test_a_pictures_gradient_does_not_depend_on_its_batch(lively: Model, pictures: Dataset) -> None:
    """Objectness alone is a mean over the cells of all pictures: the batch's gradient is the mean of its pictures'."""
    dataset = unlabelled(pictures)
    singles = batch_gradients(lively, dataset, batch=1)
    (together,) = batch_gradients(lively, dataset, batch=5)
    for name, gradient in together.items():
        np.testing.assert_allclose(gradient, np.mean([one[name] for one in singles], axis=0), rtol=1e-3, atol=1e-6 * np.abs(gradient).max() + 1e-9)


def test_pictures_are_drawn_by_the_seed_and_unreadable_ones_left_out(lively: Model, pictures: Dataset) -> None:
    singles = batch_gradients(lively, pictures, batch=1)
    drawn = sorted(np.random.default_rng(3).permutation(5)[:2].tolist())
    for found, index in zip(batch_gradients(lively, pictures, pictures=2, batch=1, seed=3), drawn, strict=True):
        np.testing.assert_array_equal(found["model.0.bn.bias"], singles[index]["model.0.bn.bias"])
    Path(pictures.paths[1]).write_bytes(b"")
    lines: list[str] = []
    left = batch_gradients(lively, pictures, batch=2, report=lines.append)
    assert len(lines) == 1 and "the file is empty" in lines[0]
    np.testing.assert_array_equal(left[0]["model.0.bn.bias"], singles[0]["model.0.bn.bias"])
    for path in pictures.paths:
        Path(path).write_bytes(b"")
    with pytest.raises(InputError, match="none of the 5 pictures can be read"):
        batch_gradients(lively, pictures)


def test_classes_in_the_networks_numbers(pictures: Dataset) -> None:
    found, note = in_network_classes(pictures, ("disc", "cross", "square"))
    assert found.names == ("disc", "cross", "square") and note is not None
    np.testing.assert_array_equal(found.labels, np.where(pictures.labels == 0, 2, 0))
    with pytest.raises(InputError, match="does not know square, disc"):
        in_network_classes(pictures, ("a", "b", "c"))


@pytest.mark.slow
def test_the_command(small_weights: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    common = ["prune", "--weights", str(small_weights), "--criterion", "taylor", "--imgsz", "64", "--project", str(tmp_path)]
    assert main(common) == 2
    assert "the criterion taylor needs the gradients of a loss: give --data" in capsys.readouterr().err
    assert main([*common, "--data", str(shapes), "--align", "0"]) == 2
    other = shapes.parent / "other.yaml"
    other.write_text("train: images/train\nval: images/val\nnames: [square, disc, cross]\n")
    capsys.readouterr()
    assert main([*common, "--data", str(other)]) == 2
    assert "the network does not know cross" in capsys.readouterr().err
    assert main([*common, "--data", str(shapes), "--keep", "1/2", "--align", "1", "--pictures", "10", "--seed", "2", "--name", "run"]) == 0
    made = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert made["settings"]["criterion"] == "taylor"
    assert load(tmp_path / "run" / "model.safetensors").lineage[-1]["criterion"] == "taylor"
    assert "gradients of 10 pictures" in (tmp_path / "run" / "log.txt").read_text()
    from octrim.pruning.importance import taylor

    model = load(small_weights)
    gradients = batch_gradients(model, open_dataset(shapes, "train"), 64, pictures=10, seed=2)
    assert made["convs"] == plan(model, "1/2", 1, taylor(gradients), image_size=(64, 64)).to_json()["convs"]
