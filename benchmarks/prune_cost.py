"""Time and memory of planning and cutting the largest P5 network.

python benchmarks/prune_cost.py [--cfg yolov5x]
"""

from __future__ import annotations

import argparse
import resource
from time import perf_counter

from octrim.network.initialize import fresh_model
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg", default="yolov5x")
    options = parser.parse_args()
    model = fresh_model(options.cfg)
    weights = sum(tensor.nbytes for tensor in model.tensors.values()) / 2**20
    for criterion in ("bn", "l1", "l2", "random"):
        start = perf_counter()
        made = plan(model, "1/2", 8, criterion)
        planned = perf_counter()
        prune(model, made)
        print(f"{criterion:7} plan {planned - start:.2f} s, cut {perf_counter() - planned:.2f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{options.cfg}: weights {weights:.0f} MiB, peak of the whole process {peak:.0f} MiB, {peak / weights:.2f} times the weights")


if __name__ == "__main__":
    main()
