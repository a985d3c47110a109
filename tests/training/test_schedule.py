"""Learning rate, warm-up and the moving average's decay at their corners."""

from __future__ import annotations

import math

import pytest

from octrim.training.hyper import Hyperparameters
from octrim.training.schedule import PUBLISHED, Averaging, Schedule, Settings, averaging, side_of_batch


def test_the_factor_falls_linearly_to_lrf_over_all_epochs() -> None:
    schedule = Schedule(Hyperparameters(lrf=0.01), epochs=100, batches=50, accumulate=4)
    assert schedule.factor(0) == 1
    assert schedule.factor(50) == pytest.approx(0.505)
    assert schedule.factor(99) == pytest.approx(0.01 * 0.99 + 0.01)
    assert schedule.factor(100) == pytest.approx(0.01)


def test_the_cosine_meets_the_line_at_both_ends_and_in_the_middle() -> None:
    schedule = Schedule(Hyperparameters(lrf=0.1), epochs=10, batches=50, accumulate=4, cosine=True)
    assert [schedule.factor(epoch) for epoch in (0, 5, 10)] == pytest.approx([1, 0.55, 0.1])
    assert schedule.factor(2) == pytest.approx((1 + math.cos(math.pi * 0.2)) / 2 * 0.9 + 0.1)


def test_warm_up_lasts_three_epochs_or_a_hundred_iterations() -> None:
    assert Schedule(Hyperparameters(), 10, 13, 4).warmup == 100
    assert Schedule(Hyperparameters(), 10, 200, 4).warmup == 600
    assert Schedule(Hyperparameters(warmup_epochs=2.5), 10, 99, 4).warmup == 248  # round half to even: 247.5
    assert Schedule(Hyperparameters(warmup_epochs=0), 10, 13, 4).warmup == 0


def test_warm_up_at_its_corners() -> None:
    schedule = Schedule(Hyperparameters(), epochs=100, batches=200, accumulate=4)
    assert schedule.at(0, 0) == Settings(rate=0, bias_rate=0.1, momentum=0.8, accumulate=1)
    middle = schedule.at(1, 100)  # iteration 300 of 600, epoch 1
    rate = 0.01 * (0.99 * 0.99 + 0.01)
    assert middle.rate == pytest.approx(rate / 2)
    assert middle.bias_rate == pytest.approx((0.1 + rate) / 2)
    assert middle.momentum == pytest.approx((0.8 + 0.937) / 2)
    assert middle.accumulate == 2  # 2.5, rounded to even
    last = schedule.at(3, 0)
    assert [last.rate, last.bias_rate] == pytest.approx([0.01 * schedule.factor(3)] * 2)
    assert last.momentum == pytest.approx(0.937) and last.accumulate == 4
    assert schedule.at(50, 7) == Settings(0.01 * schedule.factor(50), 0.01 * schedule.factor(50), 0.937, 4)


def test_without_warm_up_the_first_iteration_is_warm() -> None:
    assert Schedule(Hyperparameters(warmup_epochs=0), 10, 13, 4).at(0, 0) == Settings(0.01, 0.01, 0.937, 4)


def test_the_average_follows_fast_at_first() -> None:
    assert PUBLISHED.at(1) == pytest.approx(0.9999 * (1 - math.exp(-1 / 2000)), rel=1e-12)
    assert PUBLISHED.at(1) == pytest.approx(0.0004998, abs=1e-7)
    assert PUBLISHED.at(2000) == pytest.approx(0.9999 * (1 - 1 / math.e))
    assert PUBLISHED.at(10**6) == pytest.approx(0.9999)


@pytest.mark.parametrize(
    ("updates", "decay", "ramp"),
    [(1, 0, 0.1), (4, 0, 0.4), (40, 0.9, 4), (650, 1 - 1 / 162.5, 65), (2000, 0.998, 200), (20_000, 0.9998, 2000), (40_000, 0.9999, 2000)],
)
def test_an_average_reaches_back_a_quarter_of_the_training(updates: int, decay: float, ramp: float) -> None:
    found = averaging(updates)
    assert (found.decay, found.ramp) == pytest.approx((decay, ramp), abs=1e-12)
    assert 0 <= found.at(1) < found.at(updates) + 1e-12 <= found.decay + 1e-9


def test_long_trainings_have_the_published_average_to_the_bit() -> None:
    assert averaging(40_000) == averaging(550_000) == averaging(10**9) == PUBLISHED == Averaging(0.9999, 2000)


def test_the_rule_has_no_steps() -> None:
    """One update more changes the window by at most a quarter of an update, and the ramp by a tenth."""
    for updates in (*range(1, 300), *range(19_950, 20_050), *range(39_950, 40_050)):
        one, more = averaging(updates), averaging(updates + 1)
        assert -1e-6 < 1 / (1 - more.decay) - 1 / (1 - one.decay) <= 0.25 + 1e-6
        assert 0 <= more.ramp - one.ramp <= 0.1 + 1e-9


def test_updates_of_a_training() -> None:
    assert Schedule(Hyperparameters(), 50, 40, 1).updates == 2000
    assert Schedule(Hyperparameters(), 50, 13, 4).updates == 162
    assert Schedule(Hyperparameters(), 1, 3, 16).updates == 1


def test_multi_scale_stays_within_half_and_one_and_a_half_on_the_stride() -> None:
    sides = [side_of_batch(320, 32, 0, epoch, batch) for epoch in range(20) for batch in range(20)]
    assert min(sides) == 160 and max(sides) == 480 and all(side % 32 == 0 for side in sides)
    assert side_of_batch(320, 32, 0, 3, 5) == side_of_batch(320, 32, 0, 3, 5)
    assert len(set(sides)) == 11
