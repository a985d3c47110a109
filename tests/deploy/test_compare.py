"""What may not pass a comparison: numbers that are none, which no `>` and no `max` notices."""

from __future__ import annotations

import numpy as np
import pytest

from octrim.deploy.compare import Comparison, compare, judge, limits_of
from octrim.errors import InputError
from octrim.targets.session import Session, SessionInfo

SHAPE = (1, 6, 7)  # batch, boxes, 5 + classes


class Fixed(Session):
    """Gives the same numbers whatever it sees."""

    def __init__(self, values: np.ndarray) -> None:
        super().__init__(SessionInfo("fixed", "1", "fp32", ("a", "b"), 32))
        self.values = values

    def run(self, batch: np.ndarray) -> np.ndarray:
        return self.values


def values() -> np.ndarray:
    return np.random.default_rng(0).uniform(0.1, 0.9, SHAPE).astype(np.float32)


IMAGES = np.zeros((1, 32, 32, 3), np.uint8)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 3, 4, 6])
@pytest.mark.parametrize("side", ["reference", "deployable"])
def test_values_that_are_not_finite_are_refused(side: str, column: int, bad: float, precision: str) -> None:
    limits = limits_of(precision, precision)
    judge(compare(Fixed(values()), Fixed(values()), IMAGES, 1, limits), limits, "fixed")
    damaged = values()
    damaged[0, 2, column] = bad
    pair = (Fixed(damaged), Fixed(values())) if side == "reference" else (Fixed(values()), Fixed(damaged))
    with pytest.raises(InputError, match=f"{'fixed' if side == 'reference' else 'the deployable'} gives values that are not finite"):
        compare(*pair, IMAGES, 1, limits)


@pytest.mark.parametrize("field", ["score_error", "excess", "energy"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_difference_that_is_not_a_number_is_beyond_every_limit(field: str, precision: str) -> None:
    limits = limits_of(precision, precision)
    found = Comparison(pictures=1, **{field: float("nan")})
    judged = (field == "energy") == (precision == "int8")
    if not judged:
        judge(found, limits, "fixed")
        return
    with pytest.raises(InputError, match="differs from fixed"):
        judge(found, limits, "fixed")
