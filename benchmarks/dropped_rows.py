"""Does every target compute a network without some of its rows exactly as the whole network does with these rows bypassed?

    python -m benchmarks.dropped_rows
    python -m benchmarks.dropped_rows --layouts yolov5s yolov5s6 --targets c onnx --random 0

Every published layout, with an eighth of its channels, and random networks lose a drawn half of the blocks that can go, and a level where there
are several. The expected boxes come from the reference in NumPy, which runs the whole network and hands on what is in front of each bypassed row; it
knows nothing of the smaller table. A line per network: how many rows went, whether the reference's logits are equal to the last bit, and the largest
differences of each target: of boxes, as a share of the largest, and of scores.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings

from octrim.backends.numpy import NumpyOps, decode
from octrim.errors import InputError
from octrim.network.dropping import rows_to_drop, without_rows
from octrim.network.layout import MORE, VARIANTS
from octrim.network.model import Model
from octrim.network.rows import Network, walk
from octrim.targets.opening import open_session
from octrim.targets.table import TARGETS
from octrim.targets.target import Order
from tests.network.test_dropping import drawn_rows, expected_heads, narrow
from tests.networks import lively_model, random_networks

_BOXES, _SCORES = 1e-4, 1e-4  # largest differences that count as equal: boxes as shares of the largest one, which may be many times the picture


def networks(layouts: list[str], count: int) -> Iterator[tuple[str, Network]]:
    """The layouts with few channels, then `count` random networks."""
    for name in layouts:
        yield name, narrow(name)
    found: list[Network] = []

    @seed(0)
    @settings(
        max_examples=max(count, 1),
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    @given(random_networks())
    def draw(network: Network) -> None:
        found.append(network)

    draw()
    yield from ((f"random {number}", network) for number, network in enumerate(found[:count], 1))


def runnable(names: list[str]) -> list[str]:
    """Those of the targets that this machine can write and run; of the others it is told."""
    found = []
    for name in names:
        try:
            TARGETS[name].version()
            obstacle = TARGETS[name].obstacle()
        except (ImportError, InputError) as error:
            obstacle = str(error)
        if obstacle is None:
            found.append(name)
        else:
            print(f"{name}: not run: {obstacle}")
    return found


def compared(name: str, smaller: Model, expected: np.ndarray, picture: np.ndarray, folder: Path) -> tuple[float, float]:
    """Largest differences of a target from the expected predictions: of boxes, as a share of the largest box, and of scores."""
    kind = TARGETS[name]
    path = folder / f"{name}{kind.ending}"
    kind.write(smaller, path, Order("fp32", *picture.shape[1:3]))
    session = open_session(path)
    try:
        found = session(picture)
    finally:
        session.close()
    assert found.shape == expected.shape, f"{name}: {found.shape} instead of {expected.shape}"
    boxes = float(np.abs(found[..., :4] - expected[..., :4]).max() / expected[..., :4].max())
    return boxes, float(np.abs(found[..., 4:] - expected[..., 4:]).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layouts", nargs="*", default=[*VARIANTS, *MORE])
    parser.add_argument("--targets", nargs="*", default=list(TARGETS))
    parser.add_argument("--random", type=int, default=20)
    options = parser.parse_args()
    targets = runnable(options.targets)
    wrong = 0
    for number, (name, network) in enumerate(networks(options.layouts, options.random)):
        model = lively_model(network, number)
        patterns, levels = drawn_rows(network, number)
        gone = rows_to_drop(network, patterns, levels)
        smaller = without_rows(model, gone)
        side = 2 * network.stride
        picture = np.random.default_rng(number).integers(0, 256, (1, side, side, 3), np.uint8)
        image = picture.transpose(0, 3, 1, 2).astype(np.float32) / 255
        heads = expected_heads(model, patterns, levels, image)
        equal = all(np.array_equal(one, other) for one, other in zip(heads, walk(smaller.network, NumpyOps(smaller), image), strict=True))
        expected = decode(smaller.network, heads)
        line = f"{name}: {len(gone)} of {len(network.rows)} rows, NumPy {'equal' if equal else 'DIFFERS'}"
        bad = not equal
        with tempfile.TemporaryDirectory() as folder:
            for target in targets:
                boxes, scores = compared(target, smaller, expected, picture, Path(folder))
                bad |= boxes > _BOXES or scores > _SCORES
                line += f"; {target} {boxes:.1g}, {scores:.1g}"
        wrong += bad
        print(f"{line}{' WRONG' if bad else ''}", flush=True)
    print(f"{wrong} networks are wrong")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
