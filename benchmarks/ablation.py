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

BASE: dict[str, Any] = {
    "keep": "1/8",
    "align": 8,
    "budget": None,
    "criterion": "group-l2",
    "repair": (),
    "sparsify": 0,
    "distill": "output",
    "nominal": 16,
    "batch": 16,
    "epochs": 50,
    "iterations": 1,
    "scratch": False,
    "options": (),
}

EVERYTHING = ("--compensate", "--reconstruct", "--recalibrate")

ROWS: dict[str, dict[str, Any]] = {
    "base": {},
    "criterion signal": {"criterion": "signal"},
    "criterion bn": {"criterion": "bn"},
    "criterion taylor": {"criterion": "taylor"},
    "criterion random": {"criterion": "random"},
    "repair constants": {"repair": EVERYTHING[:1]},
    "repair all": {"repair": EVERYTHING},
    "sparsity 15 of 50": {"sparsify": 15, "criterion": "bn", "repair": EVERYTHING[:1]},
    "distill none": {"distill": "none"},
    "distill feature": {"distill": "feature"},
    "distill both": {"distill": "both"},
    "iterative, 3 cuts": {"iterations": 3},
    "nominal batch 64": {"nominal": 64},
    "batch 8, nominal 8": {"nominal": 8, "batch": 8},
    "AdamW": {"options": ("--optimizer", "AdamW", "--hyp", "{adamw}")},
    "scratch": {"scratch": True, "distill": "none"},
    "scratch, distilled": {"scratch": True},
    "align 1": {"align": 1},
    "keep 1/4": {"keep": "1/4"},
    "keep 1/2": {"keep": "1/2"},
    "keep 1/4 scratch": {"keep": "1/4", "scratch": True, "distill": "none"},
    "keep 1/2 scratch": {"keep": "1/2", "scratch": True, "distill": "none"},
    "macs as 1/8, learned shape": {"keep": None, "budget": "macs=0.0808"},
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
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "adamw.yaml").write_text("lr0: 0.002\n")
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
                    result = {"name": name, "seed": seed, "settings": row, "mAP50": metrics["mAP50"], "mAP50-95": metrics["mAP50-95"]}
                    (folder / "result.json").write_text(json.dumps(result, indent=1))
                    print(name, seed, metrics["mAP50-95"], flush=True)
            (folder / "lock").unlink()
    results = [json.loads(path.read_text()) for path in options.out.glob("*/result.json")]
    print("| row | epochs | seed | mAP50-95 | mAP50 |\n|---|---|---|---|---|")
    for result in sorted(results, key=lambda one: -one["mAP50-95"]):
        print(f"| {result['name']} | {result['settings']['epochs']} | {result['seed']} | {result['mAP50-95']:.3f} | {result['mAP50']:.3f} |")


def run_row(options: argparse.Namespace, row: dict[str, Any], folder: Path, seed: int) -> None:
    common = ["--data", options.data, "--imgsz", options.imgsz, "--workers", "1", "--noval", "--seed", seed]
    common += ["--batch", row["batch"], "--nominal-batch", row["nominal"]]
    more = [option.replace("{adamw}", str(options.out / "adamw.yaml")) for option in row["options"]]
    taught = ["--teacher", options.weights, "--distill", row["distill"]]
    weights, epochs = options.weights, row["epochs"]
    if row["sparsify"]:
        keep = row["keep"].split("/")
        target = f"{int(keep[1]) - int(keep[0])}/{keep[1]}"
        sparse = ["--target", target, "--scope", "group", "--align", row["align"]]
        weights = trained("sparsify", folder / "sparsify", weights, [*common, *taught, *more, *sparse], row["sparsify"])
        epochs -= row["sparsify"]
    steps = row["iterations"]
    for step in range(1, steps + 1):
        cut = folder / f"prune{step}"
        if not (cut / "model.safetensors").exists():
            size = ["--budget", row["budget"]] if row["budget"] else ["--keep", kept(row["keep"], step, steps)]
            repair = [part for option in row["repair"] for part in ([option] if option == "--compensate" else [option, options.data])]
            arguments = ["--weights", weights, *size, "--align", row["align"], "--criterion", row["criterion"], "--imgsz", options.imgsz, *repair]
            octrim("prune", cut, [*arguments, "--seed", seed, *(["--data", options.data] if row["criterion"] == "taylor" else [])])
        weights = str(cut / "model.safetensors")
        if step < steps:
            weights = trained("finetune", folder / f"finetune{step}", weights, [*common, *taught, *more], epochs // (2 * steps))
            epochs -= epochs // (2 * steps)
    if row["scratch"]:
        from octrim.network.initialize import fresh_tensors
        from octrim.network.model import Model, load

        model = load(weights)
        weights = str(folder / "fresh.safetensors")
        Model(model.network, fresh_tensors(model.network, seed), model.names, model.image_size, ()).save(weights)
    trained("finetune", folder / "finetune", weights, [*common, *taught, *more], epochs)


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
