"""Fixtures of the tests with a stand-in for TensorRT."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.targets.tensorrt_standin import VERSIONS, Installed, installed


@pytest.fixture(params=VERSIONS)
def fake(request: pytest.FixtureRequest) -> Iterator[Installed]:
    with installed(request.param) as made:
        yield made


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(params=VERSIONS)
def trt(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The module `tensorrt` of either version; nothing that it refused may have gone unnoticed."""
    with installed(request.param) as fake:
        yield fake.trt
        assert not fake.errors
