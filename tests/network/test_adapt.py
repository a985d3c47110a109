"""Networks for other classes, anchors and activations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from octrim.errors import InputError
from octrim.network.adapt import adapted, known_classes, with_activation
from octrim.network.initialize import fresh_model
from tests.networks import variant


def test_the_same_classes_keep_every_tensor() -> None:
    model = variant("yolov5n")
    same = adapted(model, model.names, 320)
    assert same.image_size == 320 and same.network == model.network
    assert all(same.tensors[name] is model.tensors[name] for name in model.tensors)


def test_boxes_objectness_and_known_classes_survive() -> None:
    model = variant("yolov5n")  # class0, class1, class2
    other = adapted(model, ("new", "CLASS2", "newer", "class0"), 640, seed=3)
    fresh = fresh_model("yolov5n", classes=4, seed=3)
    assert other.network.classes == 4 and other.names == ("new", "CLASS2", "newer", "class0")
    for head in other.network.heads:
        for part in ("weight", "bias"):
            before = model.tensors[f"{head}.{part}"].reshape(3, 8, -1)
            after = other.tensors[f"{head}.{part}"].reshape(3, 9, -1)
            start = fresh.tensors[f"{head}.{part}"].reshape(3, 9, -1)
            np.testing.assert_array_equal(after[:, :5], before[:, :5])
            np.testing.assert_array_equal(after[:, 6], before[:, 7])
            np.testing.assert_array_equal(after[:, 8], before[:, 5])
            np.testing.assert_array_equal(after[:, [5, 7]], start[:, [5, 7]])
    assert all(other.tensors[name] is model.tensors[name] for name in model.tensors if not name.startswith("model.24."))


def test_anchors_are_replaced() -> None:
    anchors = (((1.0, 2.0), (3.0, 4.0), (5.0, 6.0)),) * 3
    assert adapted(variant("yolov5n"), variant("yolov5n").names, 64, anchors).network.anchors == anchors


def test_letter_case_counts_where_it_tells_classes_apart() -> None:
    assert known_classes(("Dog", "cat"), ("CAT", "bird", "dog")) == {0: 1, 2: 0}
    assert known_classes(("Dog", "dog"), ("dog", "DOG")) == {0: 1}
    assert known_classes(("a", "a"), ("a",)) == {}


def test_another_activation_keeps_weights_gates_and_what_has_none() -> None:
    model = variant("yolov5n")
    gate, plain = "model.2.cv1", "model.3"
    changes = {gate: "sigmoid", plain: None, "model.5": "leaky_relu:0.1"}
    rows = tuple(replace(row, activation=changes.get(row.name, row.activation)) for row in model.network.rows)
    mixed = replace(model, network=replace(model.network, rows=rows))
    other = with_activation(mixed, "relu6")
    for before, after in zip(mixed.network.rows, other.network.rows, strict=True):
        kept = before.op != "conv" or before.name in (gate, plain, *model.network.heads)
        assert after == (before if kept else replace(before, activation="relu6"))
    assert other.tensors is mixed.tensors
    assert other.lineage == (*mixed.lineage, {"action": "activation", "activation": "relu6"})
    assert with_activation(other, "relu6") is other


def test_another_activation_needs_one_to_replace() -> None:
    model = variant("yolov5n")
    bare = replace(model, network=replace(model.network, rows=tuple(replace(row, activation=None) for row in model.network.rows)))
    with pytest.raises(InputError, match="activation is relu, but no convolution"):
        with_activation(bare, "relu")
