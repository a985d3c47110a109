"""What pictures without labels are worth: a small network with a part of the labels, with the rest as unlabelled pictures, and with all labels.

    python benchmarks/unlabelled.py --weights yolov5n.pt --data carla --imgsz 320 --out runs/unlabelled [--labels 1/4] [--seeds 0 1 2]

The labelled pictures are drawn from the training part by seed 0. The teacher of the first two networks has seen that part of the labels only. Small
networks are made by `octrim compress` with its default preset. All trainings of a kind see as many pictures: with a quarter of the labels, four times
the epochs. A training that was killed goes on. Printed is mAP50-95 of the last epoch, and how much of the gap between a part of the labels and all of
them the unlabelled pictures close.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import yaml

from octrim.data.open import open_dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--labels", type=Fraction, default=Fraction(1, 4), help="part of the training pictures that has labels")
    parser.add_argument("--train-epochs", type=int, default=25, help="epochs of the teacher with all labels")
    parser.add_argument("--epochs", type=int, default=50, help="epochs of the small network with all labels")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    data = {"all": options.data, "part": str(_part(options))}
    found = {seed: _rows(options, data, seed) for seed in options.seeds}
    print("| seed | part of the labels | and unlabelled pictures | all labels | of the gap closed |\n|---|---|---|---|---|")
    for seed, (part, unlabelled, whole) in found.items():
        closed = f"{(unlabelled - part) / (whole - part):.0%}" if whole > part else "there is none"
        print(f"| {seed} | {part:.3f} | {unlabelled:.3f} | {whole:.3f} | {closed} |")


def _rows(options: argparse.Namespace, data: dict[str, str], seed: int) -> tuple[float, float, float]:
    """mAP50-95 of the small network with a part of the labels, with unlabelled pictures besides, and with all labels."""
    more = 1 / options.labels
    teachers = {}
    for name, times in (("part", more), ("all", Fraction(1))):
        epochs = round(options.train_epochs * times)
        settings = {"weights": options.weights, "data": data[name], "epochs": epochs, "batch": 16, "nominal-batch": 16}
        teachers[name] = _trained(options, "train", f"teacher-{name}-{seed}", seed, "--noval", "--patience", 0, **settings)
    found = []
    joined = ("--unlabelled", options.out / "others.txt")
    # Where unlabelled pictures join, at least a quarter of each batch is labelled, and an epoch is a pass over those.
    for row, name, times, others in (("part", "part", more, ()), ("joined", "part", max(Fraction(1), more / 4), joined), ("all", "all", 1, ())):
        epochs = round(options.epochs * times)
        settings = {"weights": teachers[name] / "last.safetensors", "data": data[name], "train-epochs": 0, "finetune-epochs": epochs}
        folder = _trained(options, "compress", f"{row}-{seed}", seed, *others, **settings)
        found.append(json.loads((folder / "summary.json").read_text("utf-8"))["stages"]["finetuned"]["mAP50-95"])
    return found[0], found[1], found[2]


def _part(options: argparse.Namespace) -> Path:
    """The data.yaml of the data set with only a part of its training pictures; written once, the pictures in a list beside it."""
    train_set, val_set = (open_dataset(options.data, split) for split in ("train", "val"))
    drawn = np.random.default_rng(0).permutation(len(train_set))
    count = round(len(train_set) * options.labels)
    for name, paths in (("train", [train_set.paths[index] for index in sorted(drawn[:count].tolist())]), ("val", val_set.paths)):
        (options.out / f"{name}.txt").write_text("".join(f"{path}\n" for path in paths))
    (options.out / "others.txt").write_text("".join(f"{train_set.paths[index]}\n" for index in sorted(drawn[count:].tolist())))
    content = {"path": str(options.out.resolve()), "train": "train.txt", "val": "val.txt", "names": list(train_set.names)}
    (options.out / "data.yaml").write_text(yaml.safe_dump(content))
    return options.out / "data.yaml"


def _trained(options: argparse.Namespace, command: str, name: str, seed: int, *more: object, **settings: object) -> Path:
    """The folder of a training, which is begun, gone on with, or done already."""
    folder = options.out / name
    if (folder / "start.json").is_file() or (folder / "checkpoint").is_dir():
        _octrim(command, "--resume", folder)
    else:
        words = [word for option, value in settings.items() for word in (f"--{option}", value)]
        place = ("--project", options.out, "--name", name, "--exist-ok")
        _octrim(command, *words, *more, *place, "--imgsz", options.imgsz, "--seed", seed, "--workers", 1)
    return folder


def _octrim(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "octrim", *map(str, words)], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
