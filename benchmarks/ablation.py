"""What each part of the compression is worth: one factor changed at a time, every row a folder that is not made twice.

    python benchmarks/ablation.py --weights best.safetensors --data bccd --imgsz 320 --out runs/ablation [--only NAME ..] [--seeds 0 1 2]

--weights: a detector trained on the data, which is also the teacher. Rows may run side by side in several processes (with one thread each:
OMP_NUM_THREADS=1): each takes rows that nobody has begun. A row whose process was killed is left with its lock file; delete that and it is
resumed. Prints the table of what is finished. mAP is that of the last epoch, not of the best: choosing by validation pictures flatters.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from octrim.network.cost import network_cost
from octrim.network.initialize import fresh_tensors
from octrim.network.loading import load
from octrim.network.model import Model

# The default preset's fine-tuning.
BASE: dict[str, Any] = {
    "keep": "1/8",
    "align": 8,
    "keep_map": None,
    "budget": None,
    "criterion": "group-l2",
    "repair": (),
    "sparsify": 0,
    "distill": "output",
    "batch": 4,
    "nominal": 4,
    "lr0": 0.03,
    "optimizer": "SGD",
    "close_mosaic": 0,
    "epochs": 50,
    "iterations": 1,
    "scratch": False,
}

EVERYTHING = ("--compensate", "--reconstruct", "--recalibrate")

# A control trains for as many epochs as the detector and its fine-tuning together.
CONTROL: dict[str, Any] = {"scratch": True, "distill": "none", "epochs": 100}

ROWS: dict[str, dict[str, Any]] = {
    "base": {},
    "distill none": {"distill": "none"},
    "distill feature": {"distill": "feature"},
    "distill both": {"distill": "both"},
    "criterion signal": {"criterion": "signal"},
    "criterion taylor": {"criterion": "taylor"},
    "criterion bn": {"criterion": "bn"},
    "criterion random": {"criterion": "random"},
    "repair constants": {"repair": EVERYTHING[:1]},
    "repair all": {"repair": EVERYTHING},
    "sparsity 15 of 50": {"sparsify": 15, "criterion": "bn", "repair": EVERYTHING[:1]},
    "iterative, 3 cuts": {"iterations": 3},
    "batch 8": {"batch": 8, "nominal": 8},
    "batch 16": {"batch": 16, "nominal": 16},
    "batch 16, nominal 64": {"batch": 16, "nominal": 64},
    "lr0 .01": {"lr0": 0.01},
    "lr0 .06": {"lr0": 0.06},
    "AdamW, lr0 .004": {"optimizer": "AdamW", "lr0": 0.004},
    "close mosaic 15": {"close_mosaic": 15},
    "control": CONTROL,
    "from scratch, with teacher": {"scratch": True},
    "align 1": {"align": 1},
    "macs as 1/8, learned shape": {"keep": None, "budget": "macs=0.0808"},
    "thin start, wide end": {"keep_map": dict.fromkeys((f"model.{layer}" for layer in (6, 7, 8, 9, 10, 13, 14, 17, 18, 20, 21, 23)), "1/4")},
    "keep 1/4": {"keep": "1/4"},
    "keep 1/4, control": {**CONTROL, "keep": "1/4"},
    "keep 1/2": {"keep": "1/2"},
    "keep 1/2, control": {**CONTROL, "keep": "1/2"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--imgsz", default="320")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=list(ROWS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--epochs", type=int, default=BASE["epochs"])
    parser.add_argument("--picture", type=Path, help="where to draw mAP against MACs of base, keep 1/4, keep 1/2 and their controls")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        for name in options.only:
            row = {**BASE, "epochs": options.epochs, **ROWS[name]}
            folder = options.out / f"{name.replace(' ', '-').replace(',', '').replace('/', '_')}-{row['epochs']}-seed{seed}"
            folder.mkdir(exist_ok=True)
            try:
                lock = (folder / "lock").open("x")
            except FileExistsError:
                continue
            with lock:
                if not (folder / "result.json").exists():
                    run_row(options, row, folder, seed)
                    metrics = json.loads((folder / "finetune" / "metrics.json").read_text())
                    cost = network_cost(load(str(folder / "finetune" / "best.safetensors")).network, int(options.imgsz))
                    result = {"name": name, "seed": seed, "settings": row, "parameters": cost.parameters, "macs": cost.macs}
                    result |= {"mAP50": metrics["mAP50"], "mAP50-95": metrics["mAP50-95"]}
                    (folder / "result.json").write_text(json.dumps(result, indent=1))
                    print(name, seed, metrics["mAP50-95"], flush=True)
            (folder / "lock").unlink()
    results = [json.loads(path.read_text()) for path in options.out.glob("*/result.json")]
    print("| row | epochs | seed | parameters | MACs, M | mAP50-95 | mAP50 |\n|---|---|---|---|---|---|---|")
    for result in sorted(results, key=lambda one: -one["mAP50-95"]):
        cells = (result["name"], result["settings"]["epochs"], result["seed"], f"{result['parameters']:,}", f"{result['macs'] / 1e6:.0f}")
        print("|", " | ".join(map(str, (*cells, f"{result['mAP50-95']:.3f}", f"{result['mAP50']:.3f}"))), "|")
    if options.picture is not None:
        save_picture(results, options)


def save_picture(results: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """mAP50-95 against MACs, every finished seed a point: compressed, from scratch, and the network they come from."""
    folder = options.out / "teacher"
    octrim("val", folder, ["--weights", options.weights, "--data", options.data, "--imgsz", options.imgsz, "--bootstrap", 0])
    whole = json.loads((folder / "metrics.json").read_text())["mAP50-95"]
    macs = network_cost(load(options.weights).network, int(options.imgsz)).macs
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    series = {
        "cut, fine-tuned with the original as teacher": ("", "#0b5394", "o"),
        "the same network from scratch": (", control", "#b45f06", "s"),
    }
    for label, (ending, colour, marker) in series.items():
        names = (f"keep 1/2{ending}", f"keep 1/4{ending}", "control" if ending else "base")
        points = [[(one["macs"] / 1e6, one["mAP50-95"]) for one in results if one["name"] == name] for name in names]
        means = [np.mean(group, axis=0) for group in points if group]
        axes.plot(*np.transpose(means), color=colour, marker=None, linewidth=1.5)
        axes.scatter(*np.transpose([point for group in points for point in group]), color=colour, marker=marker, label=label, zorder=3)
    axes.axhline(whole, color="#666666", linewidth=1, linestyle="--")
    axes.scatter([macs / 1e6], [whole], color="#666666", marker="D", label="original", zorder=3)
    axes.set_xscale("log")
    ticks = [25, 50, 100, 200, 400]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(f"million MACs at {options.imgsz} px")
    axes.set_ylabel("mAP50-95")
    axes.set_ylim(0)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(options.picture, dpi=130, metadata={"Software": None})


def run_row(options: argparse.Namespace, row: dict[str, Any], folder: Path, seed: int) -> None:
    common = ["--data", options.data, "--imgsz", options.imgsz, "--workers", "1", "--noval", "--seed", seed]
    small = ["--batch", row["batch"], "--nominal-batch", row["nominal"], "--lr0", row["lr0"], "--optimizer", row["optimizer"]]
    small += ["--close-mosaic", row["close_mosaic"]]
    taught = ["--teacher", options.weights, "--distill", row["distill"]]
    weights, epochs = options.weights, row["epochs"]
    if row["sparsify"]:
        keep = row["keep"].split("/")
        target = f"{int(keep[1]) - int(keep[0])}/{keep[1]}"
        sparse = ["--target", target, "--scope", "group", "--align", row["align"]]
        weights = trained("sparsify", folder / "sparsify", weights, [*common, *taught, "--nominal-batch", 16, *sparse], row["sparsify"])
        epochs -= row["sparsify"]
    if row["keep_map"] is not None:
        (folder / "keep-map.json").write_text(json.dumps(row["keep_map"]))
    steps = row["iterations"]
    for step in range(1, steps + 1):
        cut = folder / f"prune{step}"
        if not (cut / "model.safetensors").exists():
            size = [] if row["keep_map"] is None else ["--keep-map", folder / "keep-map.json"]
            size += ["--budget", row["budget"]] if row["budget"] else ["--keep", kept(row["keep"], step, steps)]
            repair = [part for option in row["repair"] for part in ([option] if option == "--compensate" else [option, options.data])]
            arguments = ["--weights", weights, *size, "--align", row["align"], "--criterion", row["criterion"], "--imgsz", options.imgsz, *repair]
            octrim("prune", cut, [*arguments, "--seed", seed, *(["--data", options.data] if row["criterion"] == "taylor" else [])])
        weights = str(cut / "model.safetensors")
        if step < steps:
            weights = trained("finetune", folder / f"finetune{step}", weights, [*common, *taught, *small], epochs // (2 * steps))
            epochs -= epochs // (2 * steps)
    if row["scratch"]:
        model = load(weights)
        weights = str(folder / "fresh.safetensors")
        Model(model.network, fresh_tensors(model.network, seed), model.names, model.image_size, ()).save(weights)
    trained("finetune", folder / "finetune", weights, [*common, *taught, *small], epochs)


def kept(keep: str, step: int, steps: int) -> str:
    """The fraction that cut `step` keeps of what the one before has left: equal factors, as decimals."""
    one, parts = map(int, keep.split("/"))
    return keep if steps == 1 else f"{(one / parts) ** (1 / steps):.6f}"


def trained(command: str, folder: Path, weights: str, arguments: list[Any], epochs: int) -> str:
    """A training, resumed where one stands; returns its weights."""
    if (folder / "metrics.json").exists():
        return str(folder / "best.safetensors")
    if (folder / "checkpoint" / "state.safetensors").exists():
        subprocess.run([sys.executable, "-m", "octrim", command, "--resume", str(folder)], check=True, stdout=subprocess.DEVNULL)
    else:
        octrim(command, folder, ["--weights", weights, "--epochs", epochs, *arguments])
    return str(folder / "best.safetensors")


def octrim(command: str, folder: Path, arguments: list[Any]) -> None:
    where = ["--project", folder.parent, "--name", folder.name, "--exist-ok"]
    subprocess.run([sys.executable, "-m", "octrim", command, *map(str, [*arguments, *where])], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
