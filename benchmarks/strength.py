"""Does a sparsity strength mean the same whatever the batch, the accumulation and the number of processes?

    python benchmarks/strength.py --weights best.safetensors --data bccd --imgsz 160 --strength 10 --epochs 10 --out runs/strength

Trains the same network with the same strength in every way, skips what is done already, and prints the fraction of dead channels of each.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from pathlib import Path

# batch, nominal batch (accumulated up to it), processes
WAYS = ((4, 64, 1), (8, 64, 1), (16, 64, 1), (16, 64, 2), (4, 4, 1), (8, 8, 1), (16, 16, 1), (16, 16, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--imgsz", default="160")
    parser.add_argument("--strength", default="10")
    parser.add_argument("--epochs", default="10")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    print("| batch | nominal batch | processes | dead channels | mAP50-95 |\n|---|---|---|---|---|")
    for batch, nominal, processes in WAYS:
        folder = options.out / f"{batch}-{nominal}-{processes}"
        if not (folder / "metrics.json").exists():
            command = ["sparsify", "--weights", options.weights, "--data", options.data, "--imgsz", options.imgsz, "--epochs", options.epochs]
            command += ["--strength", options.strength, "--batch", str(batch), "--nominal-batch", str(nominal), "--devices", str(processes)]
            command += ["--noval", "--workers", "1", "--project", str(options.out), "--name", folder.name, "--exist-ok"]
            subprocess.run([sys.executable, "-m", "octrim", *command], check=True, stdout=subprocess.DEVNULL)
        last = list(csv.DictReader((folder / "results.csv").open()))[-1]
        print(f"| {batch} | {nominal} | {processes} | {float(last['sparsity/dead']):.1%} | {float(last['metrics/mAP_0.5:0.95']):.3f} |", flush=True)


if __name__ == "__main__":
    main()
