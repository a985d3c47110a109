"""Tensors of a network that no training may change: the weights of rows that pad."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from octrim.backends.paddle import paddle
from octrim.network.initialize import fresh_model
from octrim.training.hyper import read_hyperparameters
from octrim.training.learner import Learner
from octrim.training.options import Training
from octrim.training.parallel import World
from octrim.training.schedule import Settings
from octrim.training.vectors import unflattened

LAYOUT = """nc: 2
depth_multiple: 1.0
width_multiple: 1.0
anchors:
  - [10, 14, 23, 27]
backbone:
  - [-1, 1, Conv, [8, 3, 4]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, nn.ZeroPad2d, [[0, 1, 0, 1]]]
  - [-1, 1, nn.MaxPool2d, [2, 1, 0]]
head:
  - [-1, 1, Conv, [16, 1, 1]]
  - [[-1], 1, Detect, [nc, anchors]]
"""


def test_a_step_leaves_padding_as_it_is(tmp_path: Path) -> None:
    """Neither the gradient nor weight decay nor the moving average reach it."""
    path = tmp_path / "a.yaml"
    path.write_text(LAYOUT)
    model = fresh_model(path)
    learner = Learner(model, Training(batch=2, nominal_batch=2), read_hyperparameters("low"), World())
    for _ in range(3):
        learner.gradient = paddle.ones([learner.weights.parameters.size])
        assert learner.step(Settings(0.1, 0.1, 0.9, 1))
        learner.follow()
    for vector in (learner.weights.values(), learner.average.values):
        tensors = unflattened(model.network, vector.numpy())
        np.testing.assert_array_equal(tensors["model.2.weight"], model.tensors["model.2.weight"])
        assert (tensors["model.1.conv.weight"] != model.tensors["model.1.conv.weight"]).all()
