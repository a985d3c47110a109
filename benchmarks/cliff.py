"""How far can a network be cut before it stops finding things, without any training?

    python benchmarks/cliff.py --weights yolov5n.pt --data coco128 --repair-on pictures/ --out runs/cliff

Cuts 5, 10, 20 and 30 % of all channels (global budget, align 1) by every criterion, repairs in five ways, evaluates each network, and
appends a line per network to OUT/results.jsonl; started again, it goes on where it stopped. Ends with the table and OUT/cliff.png.
Repair must not see the pictures that are evaluated on: --repair-on names others.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from octrim.data.open import open_dataset
from octrim.data.picture_paths import picture_paths
from octrim.data.pictures import Readable, network_inputs
from octrim.evaluate.val import evaluate
from octrim.network.loading import load
from octrim.pruning.cut import prune
from octrim.pruning.importance import CRITERIA
from octrim.pruning.plan import plan
from octrim.pruning.repair import compensated, recalibrated, reconstructed
from octrim.targets.opening import open_session

SHARES = (5, 10, 20, 30)
REPAIRS = ("none", "constants", "recalibration", "reconstruction", "all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--repair-on", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--side", type=int, default=640)
    parser.add_argument("--criteria", nargs="*", default=list(CRITERIA))
    parser.add_argument("--shares", nargs="*", type=int, default=list(SHARES))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    results = options.out / "results.jsonl"
    model = load(options.weights)
    dataset = open_dataset(options.data, "val", model.names)
    pictures = list(network_inputs(Readable(picture_paths(options.repair_on, 200, 0)), options.side, options.side))
    done = {tuple(line["key"]): line for line in map(json.loads, results.read_text().splitlines())} if results.exists() else {}

    def measured(key: tuple, network) -> None:
        found = evaluate(open_session(network), dataset, options.side, bootstrap=0)
        line = {"key": key, "mAP50-95": found.map, "mAP50": found.map50}
        done[key] = line
        with results.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(*key, f"mAP50-95 {found.map:.4f} mAP50 {found.map50:.4f}", flush=True)

    if ("original",) not in done:
        measured(("original",), model)
    for share in options.shares:
        for criterion in options.criteria:
            for seed in range(3 if criterion == "random" else 1):
                keys = {repair: (criterion, share, repair, seed) for repair in REPAIRS}
                if all(key in done for key in keys.values()):
                    continue
                made = plan(model, align=1, criterion=criterion, seed=seed, budget=f"channels={1 - share / 100:g}")
                cut = prune(model, made)
                networks = {
                    "none": lambda cut=cut: cut,
                    "constants": lambda made=made, cut=cut: compensated(model, made, cut),
                    "recalibration": lambda made=made, cut=cut: recalibrated(model, made, cut, pictures),
                    "reconstruction": lambda made=made, cut=cut: reconstructed(model, made, cut, pictures),
                    "all": lambda made=made, cut=cut: recalibrated(model, made, reconstructed(model, made, cut, pictures), pictures),
                }
                for repair, key in keys.items():
                    if key not in done:
                        measured(key, networks[repair]())
    table(done, options.criteria, options.shares)
    picture(done, options.criteria, options.shares, options.out / "cliff.png")


def value(done: dict, criterion: str, share: int, repair: str) -> tuple[float, float]:
    """Mean and half spread of mAP50-95 over the seeds."""
    values = [line["mAP50-95"] for key, line in done.items() if len(key) == 4 and key[:3] == (criterion, share, repair)]
    return (float(np.mean(values)), (max(values) - min(values)) / 2) if values else (float("nan"), 0.0)


def table(done: dict, criteria: list[str], shares: list[int]) -> None:
    print(f"\noriginal {done[('original',)]['mAP50-95']:.3f}\n")
    print("| cut | criterion |", " | ".join(REPAIRS), "|\n|---|---|" + "---|" * len(REPAIRS))
    for share in shares:
        for criterion in criteria:
            cells = []
            for repair in REPAIRS:
                mean, spread = value(done, criterion, share, repair)
                cells.append(f"{mean:.3f}" + f" ± {spread:.3f}" * (criterion == "random"))
            print(f"| {share} % | {criterion} |", " | ".join(cells), "|")


def picture(done: dict, criteria: list[str], shares: list[int], path: Path) -> None:
    # Okabe and Ito's colours, and a dash for random, the control
    colours = ["#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#999999"]
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(REPAIRS), sharey=True)
    original = done[("original",)]["mAP50-95"]
    for axis, repair in zip(axes, REPAIRS, strict=True):
        for criterion, colour in zip(criteria, colours, strict=False):
            means = [original, *(value(done, criterion, share, repair)[0] for share in shares)]
            axis.plot([0, *shares], means, color=colour, marker="o", ms=3, lw=1.5, ls="--" if criterion == "random" else "-", label=criterion)
        axis.set_title(f"repair: {repair}", fontsize=10)
        axis.set_xlabel("channels cut, %")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("mAP50-95")
    axes[-1].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
