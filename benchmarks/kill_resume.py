"""A training killed (-9) at random moments and resumed each time, against one that nobody disturbs.

    python benchmarks/kill_resume.py --weights W --data D [--kills 10 --epochs 4 --imgsz 64 --batch 4 --seed 0]

Ends with 0 when results.csv, both weights and the training state are the same to the last bit.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from octrim.training.checkpoint import CHECKPOINT, load_state


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--imgsz", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        start = [sys.executable, "-m", "octrim", "train", "--weights", options.weights, "--data", options.data, "--project", folder]
        start += ["--epochs", str(options.epochs), "--imgsz", str(options.imgsz), "--batch", str(options.batch), "--nominal-batch", "12"]
        began = time.monotonic()
        subprocess.run([*start, "--name", "whole"], check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - began
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        print(f"undisturbed: {seconds:.1f} s")
        command, kills = [*start, "--name", "killed"], 0
        while True:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            try:
                code = process.wait(rng.uniform(0.3, 1.0) * seconds if kills < options.kills else None)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills += 1
                resumable = (killed / CHECKPOINT).is_file()
                where = f"epoch {load_state(killed / CHECKPOINT).epoch}" if resumable else "before the first checkpoint"
                print(f"kill {kills}: the last checkpoint is {where}")
                command = ["octrim", "train", "--resume", str(killed)] if resumable else [*start, "--name", "killed", "--exist-ok"]
                command = [sys.executable, "-m", *command] if command[0] == "octrim" else command
                continue
            if code:
                return code
            if kills >= options.kills:
                break
            # It was done before its time: all over again, until all kills are spent.
            command = [*start, "--name", "killed", "--exist-ok"]
            same(whole, killed)
            print("finished in between: the same")
            for path in killed.rglob("*"):
                if path.is_file():
                    path.unlink()
        same(whole, killed)
        print(f"{kills} kills: results.csv, weights and state are the same")
        return 0


def same(whole: Path, killed: Path) -> None:
    for name in ("results.csv", "last.safetensors", "best.safetensors"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), f"{name} differs"
    one, two = load_state(whole / CHECKPOINT), load_state(killed / CHECKPOINT)
    for name, array in one.arrays.items():
        assert np.array_equal(array, two.arrays[name]), f"{name} differs"


if __name__ == "__main__":
    sys.exit(main())
