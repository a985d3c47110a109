"""Peak memory and time of `prune --recalibrate` and `--reconstruct`, by number of pictures; each measurement in a process of its own.

    python -m benchmarks.repair_memory --networks yolov5n yolov5s --sides 320 640 --pictures 50 100 200 400

Fresh weights, half of the channels, pictures of noise. The peak is that of the process (`ru_maxrss`), with the 0.4 GiB that Paddle takes by itself.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np

REPAIRS = ("recalibrate", "reconstruct")


def noise(count: int, side: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(0)
    for _ in range(count):
        yield generator.integers(0, 256, (side, side, 3), np.uint8)


def measure(network: str, side: int, count: int, repair: str) -> None:
    """Print one measurement as JSON."""
    from octrim.network.initialize import fresh_model
    from octrim.pruning.cut import prune
    from octrim.pruning.plan import plan
    from octrim.pruning.repair import recalibrated, reconstructed

    model = fresh_model(network)
    made = plan(model, "1/2", 8, "random")
    small = prune(model, made)
    started = time.perf_counter()
    function = {"recalibrate": recalibrated, "reconstruct": reconstructed}[repair]
    function(model, made, small, noise(count, side))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"peak_gib": round(peak, 2), "seconds": round(time.perf_counter() - started, 1)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--networks", nargs="+", default=["yolov5n", "yolov5s"])
    parser.add_argument("--sides", nargs="+", type=int, default=[320, 640])
    parser.add_argument("--pictures", nargs="+", type=int, default=[50, 100, 200, 400])
    parser.add_argument("--repairs", nargs="+", choices=REPAIRS, default=list(REPAIRS))
    parser.add_argument("--one", nargs=4, metavar=("NETWORK", "SIDE", "PICTURES", "REPAIR"), help="measure one in this process")
    options = parser.parse_args()
    if options.one:
        network, side, count, repair = options.one
        measure(network, int(side), int(count), repair)
        return
    print("| network | side | repair | pictures | peak, GiB | seconds |\n|---|---|---|---|---|---|")
    for network in options.networks:
        for side in options.sides:
            for repair in options.repairs:
                for count in options.pictures:
                    command = [sys.executable, "-m", "benchmarks.repair_memory", "--one", network, str(side), str(count), repair]
                    done = subprocess.run(command, capture_output=True, text=True, check=True)
                    found = json.loads(done.stdout.splitlines()[-1])
                    print(f"| {network} | {side} | {repair} | {count} | {found['peak_gib']} | {found['seconds']} |", flush=True)


if __name__ == "__main__":
    main()
