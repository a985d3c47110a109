"""A compression stopped once in every stage and resumed each time, against one that nobody disturbs.

    python benchmarks/kill_compress.py --weights W --data D [--epochs 2 --imgsz 64 --batch 4 --align 8 --keep 1/4 --seed 0]
    python benchmarks/kill_compress.py --weights W --data D --random 20    # at moments drawn over the whole time, four to a run
    python -m benchmarks.kill_compress --weights W --data D --signals INT KILL --more --budget macs=0.1 --cut-epochs 1 --levels auto --drop auto

Stages: train, sparsify, prune (two cuts, with a fine-tuning between them), finetune, export, bench, control; with --more, which has to stand last,
those of a compression with these options. --signals: each stops a run of its own (default: KILL). Ends with 0 when summary.json without its times,
the plans, the choice of rows, and every network are the same to the last bit.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from octrim.network.model import sha256
from octrim.stages import STAGES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--imgsz", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--keep", default="1/4")
    parser.add_argument("--align", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--random", type=int, default=0, metavar="KILLS")
    parser.add_argument("--signals", nargs="+", choices=["INT", "TERM", "KILL"], default=["KILL"])
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[])
    options = parser.parse_args()
    # A shell starts what runs in its background with SIGINT ignored, and so would be every run that this program starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        start = [sys.executable, "-m", "octrim", "compress", "--weights", options.weights, "--data", options.data, "--project", folder]
        start += ["--imgsz", str(options.imgsz), "--batch", str(options.batch), "--nominal-batch", str(2 * options.batch)]
        start += ["--align", str(options.align), "--iterations-bench", "20"]
        for stage in ("train", "finetune"):
            start += [f"--{stage}-epochs", str(options.epochs)]
        steps = [
            "--keep",
            options.keep,
            "--control",
            "--iterations",
            "2",
            "--sparsify-epochs",
            str(options.epochs),
            "--step-epochs",
            str(options.epochs),
        ]
        start += options.more or steps
        began = time.monotonic()
        subprocess.run([*start, "--name", "whole"], check=True, stdout=subprocess.DEVNULL)
        length = time.monotonic() - began
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        seconds = list(summary(whole)["times"]["seconds"].values())
        stages = [stage.folder for stage in STAGES if (whole / stage.folder / "stage.json").is_file()]  # which of all that there can be
        print("undisturbed:", ", ".join(f"{stage} {value:.1f} s" for stage, value in zip(stages, seconds, strict=True)))
        if options.random:
            at_random(start, whole, killed, stages, options.random, length, rng)
            return 0
        for name in options.signals:
            stopping = signal.Signals[f"SIG{name}"]
            command = [*start, "--name", "killed"]
            for number, (stage, length) in enumerate(zip(stages, seconds, strict=True), 1):
                wait = rng.uniform(0.1, 0.8) * length
                while not kill_in(command, killed, f"[{number}/{len(stages)}]", stage, wait, stopping):
                    shutil.rmtree(killed / stage)  # it was done before its time: once more
                    wait /= 2
                    command = [sys.executable, "-m", "octrim", "compress", "--resume", str(killed)]
                command = [sys.executable, "-m", "octrim", "compress", "--resume", str(killed)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            print(f"{len(stages)} times {stopping.name}: {same(whole, killed)}", flush=True)
            shutil.rmtree(killed)
        return 0


def at_random(start: list[str], whole: Path, killed: Path, stages: list[str], kills: int, length: float, rng: random.Random) -> None:
    """Runs of four kills each, then resumed to their end and compared. One kill in five may come before a run has said anything."""
    log = killed / "log.txt"
    for done in range(0, kills, 4):
        for number in range(done, min(done + 4, kills)):
            seen = log.stat().st_size if log.is_file() else 0
            process = subprocess.Popen(command_for(start, killed), stdout=subprocess.DEVNULL)
            early, wait = rng.random() < 0.2, rng.uniform(0, length / 4)
            while not early and process.poll() is None and not (log.is_file() and log.stat().st_size > seen):
                time.sleep(0.01)
            time.sleep(wait / 10 if early else wait)
            process.kill()
            code = process.wait()
            if code == 0:  # it was done before: a stage once more
                shutil.rmtree(killed / rng.choice(stages[:-1]))
            elif code != -signal.SIGKILL:
                raise SystemExit(f"ended with {code}")
            there = [stage for stage in stages if (killed / stage / "stage.json").is_file()]
            print(f"kill {number + 1}, {wait / 10 if early else wait:.1f} s after {'the start' if early else 'the first line'}, ", end="")
            print(f"{len(there)} of {len(stages)} stages done", flush=True)
        subprocess.run(command_for(start, killed), check=True, stdout=subprocess.DEVNULL)
        print(f"{min(done + 4, kills)} kills: {same(whole, killed)}", flush=True)
        shutil.rmtree(killed)


def command_for(start: list[str], killed: Path) -> list[str]:
    """Go on; anew where the kill came before there was anything to go on with."""
    if (killed / "config.yaml").is_file():
        return [sys.executable, "-m", "octrim", "compress", "--resume", str(killed)]
    shutil.rmtree(killed, ignore_errors=True)
    return [*start, "--name", killed.name]


def kill_in(command: list[str], run: Path, line: str, stage: str, seconds: float, stopping: signal.Signals) -> bool:
    """Stop so long after the log has said that the stage begins. False when the stage was done by then."""
    log = run / "log.txt"
    seen = len(log.read_text()) if log.is_file() else 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not (log.is_file() and line in log.read_text()[seen:]):
        if process.poll() is not None:
            raise SystemExit(f"ended with {process.returncode} before {stage}")
        time.sleep(0.01)
    time.sleep(seconds)
    process.send_signal(stopping)
    process.wait()
    if (run / stage / "stage.json").exists():
        return False
    left = sorted(path.relative_to(run).as_posix() for path in (run / stage).rglob("*") if path.is_file())
    print(f"{stopping.name} {seconds:.1f} s into {stage}, with {len(left)} files: {', '.join(left[-3:])}")
    return True


def summary(run: Path) -> dict[str, Any]:
    return json.loads((run / "summary.json").read_text())


def same(whole: Path, killed: Path) -> str:
    """Compare two runs, and tell what is the same. Raises AssertionError where something is not."""
    one, two = summary(whole), summary(killed)
    for key in one:
        assert key == "times" or one[key] == two[key], f"{key}: {one[key]} and {two[key]}"
    files = [path.relative_to(whole) for name in ("plan.json", "dropping.json") for path in sorted(whole.rglob(name))]
    networks = [path.relative_to(whole) for path in sorted(whole.rglob("*.safetensors")) if path.parent.name != "checkpoint"]
    for name in (*files, *networks):
        assert sha256(whole / name) == sha256(killed / name), f"{name} differs"
    return f"the summary without its times, {', '.join(map(str, files))} and {len(networks)} networks are the same"


if __name__ == "__main__":
    sys.exit(main())
