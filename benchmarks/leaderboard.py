"""Leaderboard: what each network and recipe reaches on each data set, and what it costs. docs/leaderboard.md is made from the results.

    python benchmarks/leaderboard.py run --data-root DATA --out runs/leaderboard --weights yolov5n.pt [--only bccd/yolov5n/whole/0 ..]
    python benchmarks/leaderboard.py adopt RUN --row bccd/yolov5n/whole/0 --commit 2019a7a   # a training that was made elsewhere
    python benchmarks/leaderboard.py time --out runs/leaderboard                             # on a quiet machine
    python benchmarks/leaderboard.py page

A row is data/network/recipe/seed. `run` makes the rows that --results (benchmarks/leaderboard.json) lacks, one after the other. Each trains in its
own folder below --out, so a killed row goes on where it stood, and several processes take different rows. --data-root holds bccd, carla and raccoon
(default: the environment variable OCTRIM_REAL_DATA); the pictures of Pong are made. Accuracy is that of the last epoch. Trainings may share a
machine with other work; milliseconds are measured by `time` alone.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # `python benchmarks/leaderboard.py` finds the page beside it, `python -m benchmarks.leaderboard` too
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.leaderboard_page import write_page
from octrim.network.cost import network_cost
from octrim.network.initialize import fresh_model, fresh_tensors
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan

RESULTS = Path(__file__).with_suffix(".json")
RIVALS = Path(__file__).parent / "rivals"
SHIPPED = ("picodet", "picodet-p3")
"""Rivals that come with OcTrim as layouts of their own."""

DATA = {"bccd": 320, "carla": 320, "raccoon": 320, "pong": 256}
"""Data sets, and the side of the pictures that networks are trained and timed with."""

LEVELS: list[Any] = ["--budget", "macs=0.0815", "--widths", "importance", "--levels", 8, 16]
SGD: list[Any] = ["--finetune-optimizer", "SGD"]
BOX4: list[Any] = ["--box-weight", 4]
BF16: list[Any] = ["--teacher-precision", "bf16"]
WIDE: list[Any] = ["--keep-map", "benchmarks/wide-detect.json"]
VARIANCE: list[Any] = ["--widths", "variance"]
DROP: list[Any] = ["--budget", "latency=0.926", "--latency-table", "openvino.json", "--drop", "auto"]
MILLISECONDS: list[Any] = ["--budget", "latency=0.88", "--latency-table", "c.json"]
C_TIME: list[Any] = ["--budget", "latency=0.4456", "--latency-table", "c.json"]
C_TIME_OF_STREETS: list[Any] = ["--budget", "latency=0.4508", "--latency-table", "c.json"]

DEFAULT: list[Any] = ["--preset", "default", "--finetune-epochs", 100]
"""The preset without the further epochs that it gives to small data sets."""

RECIPES: dict[str, list[Any]] = {
    "whole": ["--epochs", 50, "--batch", 16, "--nominal-batch", 16],
    "scratch": ["--epochs", 100, "--batch", 4, "--nominal-batch", 4, "--lr0", 0.1, "--optimizer", "Muon"],
    "fast": ["--preset", "fast"],
    "fast-sgd": ["--preset", "fast", *SGD],
    "default": [*DEFAULT],
    "default-50": ["--preset", "default", "--finetune-epochs", 50],
    "default-50-box4": ["--preset", "default", "--finetune-epochs", 50, *BOX4],
    "default-box4": [*DEFAULT, *BOX4],
    "default-sgd": [*DEFAULT, *SGD],
    "default-relu": [*DEFAULT, "--activation", "relu"],
    "default-relu-sgd": [*DEFAULT, *SGD, "--activation", "relu"],
    "default-levels-8-16": [*DEFAULT, *LEVELS],
    "default-levels-8-16-sgd": [*DEFAULT, *SGD, *LEVELS],
    "default-bf16": [*DEFAULT, *BF16],
    "default-relu-bf16": [*DEFAULT, "--activation", "relu", *BF16],
    "default-levels-8-16-bf16": [*DEFAULT, *LEVELS, *BF16],
    "default-wide-bf16": [*DEFAULT, *WIDE, *BF16],
    "default-ms-bf16": [*DEFAULT, "--widths", "importance", *MILLISECONDS, *BF16],
    "default-variance-bf16": [*DEFAULT, *VARIANCE, *BF16],
    "default-relu-variance-bf16": [*DEFAULT, "--activation", "relu", *VARIANCE, *BF16],
    "default-leaky-relu-variance-bf16": [*DEFAULT, "--activation", "leaky_relu:0.1", *VARIANCE, *BF16],
    "default-hardswish-variance-bf16": [*DEFAULT, "--activation", "hardswish", *VARIANCE, *BF16],
    "fast-variance-bf16": ["--preset", "fast", *VARIANCE, *BF16],
    "best-variance-bf16": ["--preset", "best", *VARIANCE, *BF16],
    "default-drop-bf16": [*DEFAULT, "--widths", "importance", *DROP, *BF16],
    "default-c-variance-bf16": [*DEFAULT, *C_TIME, *VARIANCE, *BF16],
    "default-c-streets-variance-bf16": [*DEFAULT, *C_TIME_OF_STREETS, *VARIANCE, *BF16],
    "default-student-bf16": [*DEFAULT, *BF16],
    "default-student-half-bf16": [*DEFAULT, "--keep", "1/2", *VARIANCE, *BF16],
    "best": ["--preset", "best"],
    "best-bf16": ["--preset", "best", *BF16],
    "best-box4": ["--preset", "best", *BOX4],
    "best-sgd": ["--preset", "best", *SGD],
}
"""Options of each recipe. `whole` trains from --weights; `scratch` trains fresh weights; the others compress the network of the row `whole`."""

STUDENTS = ("default-student-bf16", "default-student-half-bf16")
"""Recipes in which the network of the row `whole` teaches a rival; `-half` then cuts it to the multiply-adds that half of its channels have."""

CUTS = tuple(recipe for recipe in RECIPES if recipe not in ("whole", "scratch", *STUDENTS))
"""Recipes that cut. `default-levels-8-16` drops the coarsest level, and keeps by importance as many multiply-adds as the 1/8 network has. Those that
end with -sgd fine-tune with SGD, as the presets did before Muon, those with -box4 weigh the boxes' loss four times, and those with -bf16 have a
teacher that computes in bfloat16. `default-wide` keeps 32 channels in every map that Detect reads, and `default-ms` is planned for 0.88 ms in C, the
time of the 1/8 network, by a latency table of the machine at hand (`octrim bench --latency-table c.json --runtime c --threads 1 --imgsz 320`).
`default-drop` is planned for the time of the 1/8 network in OpenVINO by such a table (`--runtime openvino --threads 2`), and may drop blocks, and
`default-c` for the time of the cells' 1/8 network in C, on a later and faster machine, `default-c-streets` for that of the streets' 1/8 network.
Those with -variance spread the multiply-adds of the cut over the layers by the variance of their feature maps, as `compress` does without --keep."""


def rivals() -> list[str]:
    """Names of the rivals' layouts."""
    return sorted([*SHIPPED, *(path.stem for path in RIVALS.glob("*.yaml"))])


def layout_of(rival: str) -> str:
    """A rival's layout as --cfg and --student take it in the folder of the repository, where all commands run."""
    return rival if rival in SHIPPED else f"benchmarks/rivals/{rival}.yaml"


def rows() -> list[str]:
    """The names of all rows of seed 0, in the order in which they are made."""
    found = []
    for data in ("raccoon", "bccd", "pong", "carla"):
        found += [f"{data}/yolov5n/whole/0", *(f"{data}/{rival}/scratch/0" for rival in rivals())]
        found += [
            f"{data}/yolov5n {keep}/{recipe}/0"
            for keep in ("1/8", "1/4", "1/2")
            for recipe in ("scratch", "fast", "default", "best", "default-levels-8-16")
            if keep == "1/8" or "--budget" not in RECIPES[recipe]
        ]
    return [name.replace("1/", "1:") for name in found]


def parts(name: str) -> tuple[str, str, str, int]:
    """Data set, network, recipe and seed of a row's name. Raises ValueError for a name that is none."""
    data, network, recipe, seed = name.split("/")
    kept = network.partition(" ")[2]
    known = network in ("yolov5n", "yolov5n 1:8", "yolov5n 1:4", "yolov5n 1:2") or network in rivals()
    if data not in DATA or recipe not in RECIPES or not known or (recipe in CUTS and not kept) or (recipe in STUDENTS and network not in rivals()):
        raise ValueError(f"{name}: expected DATA/NETWORK/RECIPE/SEED, such as bccd/yolov5n 1:8/scratch/0")
    return data, network, recipe, int(seed)


def command(name: str, data: str, source: str) -> list[str]:
    """Arguments of octrim that make a row. data: path of the data set. source: file of the weights that the row starts from, or its layout."""
    _, network, recipe, seed = parts(name)
    common = ["--data", data, "--imgsz", DATA[parts(name)[0]], "--seed", seed, *RECIPES[recipe]]
    if recipe in (*CUTS, *STUDENTS):
        keep = [] if "--budget" in RECIPES[recipe] else ["--keep", network.partition(" ")[2].replace(":", "/")]
        small = ["--student", layout_of(network)] if recipe in STUDENTS else keep
        arguments = ["compress", "--weights", source, *small, "--train-epochs", 0, *common]
    else:
        arguments = ["train", "--cfg" if not source.endswith((".safetensors", ".pt")) else "--weights", source, *common, "--noval"]
    return list(map(str, arguments))


def shown(name: str) -> str:
    """The command of a row as a user would type it, with names in place of this machine's paths."""
    data, network, recipe, _ = parts(name)
    if recipe == "whole":
        source = "yolov5n.pt"
    elif recipe in (*CUTS, *STUDENTS):
        source = "WHOLE/last.safetensors"
    elif network.startswith("yolov5n"):
        source = "fresh.safetensors"
    else:
        source = layout_of(network)
    return " ".join(["octrim", *command(name, data, source)])


def source_of(name: str, options: argparse.Namespace, folder: Path) -> str:
    """The file or layout that a row starts from. Fresh weights of a cut table are made here. Raises ValueError where the row `whole` is missing."""
    data, network, recipe, seed = parts(name)
    if recipe == "whole":
        return str(options.weights)
    if recipe in (*CUTS, *STUDENTS):
        whole = folder.parent / folder_name(f"{data}/yolov5n/whole/{seed}") / "train" / "last.safetensors"
        if not whole.is_file():
            raise ValueError(f"{name} compresses the network of {data}/yolov5n/whole/{seed}, which is not there yet")
        return str(whole)
    if not network.startswith("yolov5n"):
        return layout_of(network)
    path = folder / "fresh.safetensors"
    if not path.is_file():
        base = fresh_model("yolov5n", seed=seed)
        kept = network.partition(" ")[2].replace(":", "/")
        table = prune(base, plan(base, kept, 8, "l1")).network if kept else base.network
        Model(table, fresh_tensors(table, seed), base.names, base.image_size, ()).save(path)
    return str(path)


def folder_name(name: str) -> str:
    return name.replace("/", "-").replace(" ", "-").replace(":", "")


def octrim(arguments: list[Any], threads: int = 1) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "octrim", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment, cwd=Path(__file__).parents[1])


def run(options: argparse.Namespace) -> None:
    """Make the rows that are missing."""
    for name in options.only or rows():
        data, _, recipe, _ = parts(name)
        folder = options.out / folder_name(name)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a killed process gives its lock back by itself
            except BlockingIOError:
                continue
            if name in read_results(options.results):
                continue
            place = pong_pictures(options.out) if data == "pong" else options.data_root / data
            target = folder / ("compress" if recipe in (*CUTS, *STUDENTS) else "train")
            kind = target.name
            if (target / "checkpoint" / "state.safetensors").is_file() or (target / "start.json").is_file():
                octrim([kind, "--resume", target, "--data", place])
            else:
                arguments = command(name, str(place), source_of(name, options, folder))
                octrim([*arguments, "--workers", 1, "--project", folder, "--name", kind, "--exist-ok"])
            keep_result(options.results, name, result(name, target, commit()))
            print(name, read_results(options.results)[name]["mAP50-95"], flush=True)


def pong_pictures(out: Path) -> Path:
    """The data set of 800 pictures of Pong, made where it is missing."""
    folder = out / "pong-data"
    if not (folder / "data.yaml").is_file():
        octrim(["pong", "data", "--images", 800, "--imgsz", DATA["pong"], "--out", folder])
    return folder


def result(name: str, run: Path, made_by: str) -> dict[str, Any]:
    """What a finished run reached: the content of a row. run: folder of a training or of a compression. made_by: the commit that trained."""
    stage = run / "4-finetune" if (run / "4-finetune").is_dir() else run
    found = json.loads((stage / "metrics.json").read_text())
    weights = stage / found.get("weights", "last.safetensors")
    model = load(weights)
    if found.get("weights") != "last.safetensors":
        epochs = len((stage / "results.csv").read_text().splitlines()) - 1
        last = load(stage / "last.safetensors")
        if last.lineage[-1].get("epoch") != model.lineage[-1].get("epoch") or last.lineage[-1].get("epoch") != epochs:
            raise ValueError(f"{run}: its metrics are not of the last epoch")
    cost = network_cost(model.network, DATA[parts(name)[0]])
    trained = [folder / "times.csv" for folder in (run / "student", stage) if folder.is_dir()]
    times = [line.split(",") for file in trained for line in file.read_text().splitlines()[1:]]
    content = {"mAP50-95": found["mAP50-95"], "mAP50": found["mAP50"], "mAP50 interval": found["interval"]["mAP50"]}
    content |= {"parameters": cost.parameters, "macs": cost.macs, "hours": round(sum(float(row[1]) + float(row[2]) for row in times) / 3600, 3)}
    return {**content, "epochs": len(times), "commit": made_by, "command": shown(name)}


def commit() -> str:
    """The commit of the code that trains, marked where the checkout has changes."""
    return subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    ).stdout.strip()


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """The rows by name that are done."""
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def keep_result(path: Path, name: str, values: dict[str, Any]) -> None:
    """Add values to a row in the file of results, which is written whole or not at all, whoever else writes to it."""
    from octrim.atomic import write_text

    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = read_results(path)
        found[name] = found.get(name, {}) | values
        write_text(path, json.dumps(dict(sorted(found.items())), indent=1) + "\n")


def adopt(options: argparse.Namespace) -> None:
    """Take a training that was made elsewhere for a row, and link its folder to where `time` and dependent rows look for it."""
    keep_result(options.results, options.row, result(options.row, options.run, options.commit))
    folder = options.out / folder_name(options.row)
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / ("compress" if (options.run / "4-finetune").is_dir() else "train")
    if not link.exists():
        link.symlink_to(options.run.resolve(), target_is_directory=True)


def time(options: argparse.Namespace) -> None:
    """Measure milliseconds per picture of the networks alone: OpenVINO fp32 with two threads, C with one; all of one data set take turns."""
    for data, side in DATA.items():
        weights: dict[str, str] = {}
        for name in (name for name in read_results(options.results) if name.startswith(f"{data}/")):
            folder = options.out / folder_name(name)
            path = next((path for path in (folder / "train", folder / "compress" / "4-finetune") if path.is_dir()), None)
            if path is not None and (path / "last.safetensors").is_file():
                weights[str(path / "last.safetensors")] = name
        for runtime, threads in (("openvino", 2), ("c", 1)) if weights else ():
            place = ["--project", options.out, "--name", "bench", "--exist-ok"]
            octrim(["bench", "--weights", *weights, "--imgsz", side, "--runtime", runtime, "--threads", threads, "--rounds", 400, *place], threads)
            for network in json.loads((options.out / "bench" / "bench.json").read_text())["networks"]:
                keep_result(options.results, weights[network["name"]], {f"ms {runtime}": network["network_p50_ms"]})


def page(options: argparse.Namespace) -> None:
    """Write docs/leaderboard.md, its pictures and the rows that come with OcTrim from the rows that are done."""
    write_page(read_results(options.results))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(required=True)
    for function in (run, adopt, time, page):
        kind = kinds.add_parser(function.__name__, help=function.__doc__)
        kind.set_defaults(function=function)
        kind.add_argument("--results", type=Path, default=RESULTS, help="JSON file of the rows that are done")
        kind.add_argument("--out", type=Path, default=Path("runs/leaderboard"), help="folder of the rows' runs")
        if function is run:
            kind.add_argument(
                "--data-root", type=Path, default=Path(os.environ.get("OCTRIM_REAL_DATA", "../shared/data")), help="folder of the data sets"
            )
            kind.add_argument("--weights", type=Path, default="yolov5n.pt", help="official weights that the rows `whole` start from")
            kind.add_argument("--only", nargs="+", metavar="ROW", help="rows to make (default: all of seed 0)")
        if function is adopt:
            kind.add_argument("run", type=Path, help="folder of the finished training or compression")
            kind.add_argument("--row", required=True, help="name of the row")
            kind.add_argument("--commit", required=True, help="commit that trained")
    options = parser.parse_args()
    for name in ("out", "data_root", "results", "weights"):
        if hasattr(options, name):
            setattr(options, name, getattr(options, name).resolve())
    options.function(options)


if __name__ == "__main__":
    main()
