"""mAP50-95 against milliseconds: networks that are planned for a time, and networks that keep the same fraction of every layer, trained alike.

    python -m benchmarks.frontier run --data carla --whole whole/last.safetensors --table c.json --out runs/frontier
    python -m benchmarks.frontier time --table c.json --out runs/frontier       # on the table's machine, quiet
    python -m benchmarks.frontier draw --out runs/frontier                      # runs/frontier/frontier.png

`run` compresses the network --whole for each budget of milliseconds twice, one row after the other: `planned` by `--budget latency=B`, and `uniform`
by the largest --keep in steps of 1/64 that the table predicts to fit. It goes on where it was stopped, and leaves out what is done. --more adds
options of `octrim compress` to the planned rows, such as --more=--levels --more=auto. A budget that cannot be met is told and left out. `time`
measures every network beside the table's reference; `draw` takes measured times where there are, else budgets. --also LABEL=RUN, in both, adds
trained networks by their runs' folders: the whole one, rivals, rows of the leaderboard.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

from octrim.atomic import write_text
from octrim.errors import InputError
from octrim.figures import new_figure, save_figure
from octrim.latency.budget import stopwatch_of
from octrim.latency.table import LatencyTable, read_table
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.pruning.plan import plan

BUDGETS = (0.25, 0.4, 0.8, 1.2, 2.5, 5.0)
"""Milliseconds of the rows."""

_STEPS = 64  # fractions that uniform networks keep are multiples of 1/_STEPS
_COLOURS = {"planned": "#d55e00", "uniform": "#0072b2"}


def uniform_keep(model: Model, table: LatencyTable, milliseconds: float) -> str | None:
    """The largest fraction, in steps of 1/64, that every layer may keep so that the network is predicted to take that time; None where none is."""
    for step in range(_STEPS, 0, -1):
        keep = str(Fraction(step, _STEPS))
        made = plan(model, keep, 8, "l2", image_size=(table.height, table.width), nearest=True)
        if table.predict(made.network) <= milliseconds:
            return keep
    return None


def options_of(kind: str, model: Model, table: LatencyTable, file: str, milliseconds: float, more: list[str]) -> list[str] | None:
    """Options of `octrim compress` for one row; None where no uniform network fits."""
    if kind == "planned":
        return ["--budget", f"latency={milliseconds:g}", "--latency-table", file, *more]
    keep = uniform_keep(model, table, milliseconds)
    return None if keep is None else ["--keep", keep]


def run(options: argparse.Namespace) -> None:
    """Make the rows that are missing."""
    table, model = read_table(options.table), load(options.whole)
    for milliseconds in options.budgets:
        for kind in options.kinds:
            name = f"{Path(options.data).name}-{kind}-{milliseconds:g}"
            target = options.out / name
            if (target / "summary.json").is_file():
                continue
            if (target / "start.json").is_file():
                arguments = ["compress", "--resume", str(target), "--data", options.data]
            else:
                chosen = options_of(kind, model, table, options.table, milliseconds, options.more)
                if chosen is None:
                    print(f"{name}: no fraction of every layer is predicted to take {milliseconds:g} ms", flush=True)
                    continue
                common = ["--data", options.data, "--imgsz", str(table.height), "--seed", str(options.seed), "--preset", options.preset]
                place = ["--project", str(options.out), "--name", name, "--exist-ok", "--workers", "1"]
                arguments = ["compress", "--weights", options.whole, "--train-epochs", "0", *common, *chosen, *place]
            done = subprocess.run(
                [sys.executable, "-m", "octrim", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
            )
            if done.returncode:
                print(f"{name}: {done.stderr.strip()}", flush=True)
                continue
            print(name, row(target)["mAP50-95"], flush=True)


def row(target: Path) -> dict[str, Any]:
    """The finished row of a compression's folder."""
    data, kind, milliseconds = target.name.rsplit("-", 2)
    found = json.loads((target / "summary.json").read_text("utf-8"))["stages"]["finetuned"]
    return {"data": data, "kind": kind, "budget": float(milliseconds), "mAP50-95": found["mAP50-95"], "interval": found["interval"]}


def finished(out: Path) -> list[Path]:
    """Folders of the rows that are done, by data, kind and budget."""
    folders = [path.parent for path in out.glob("*/summary.json")]
    return sorted(folders, key=lambda target: (*target.name.rsplit("-", 2)[:2], row(target)["budget"]))


def measure(options: argparse.Namespace) -> None:
    """Measure all networks three times, in turns, and write the medians to times.json."""
    table = read_table(options.table)
    watch = stopwatch_of(table)
    if watch is None:
        raise InputError(f"{options.table}: is of another machine")
    networks = {target.name: load(target / "4-finetune" / "last.safetensors").network for target in finished(options.out)}
    networks |= {label: load(folder / "last.safetensors").network for label, folder in options.also}
    times: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(3):
        for name, network in networks.items():
            times[name].append(table.reference[1] * watch.relative(network))
    found = {name: {"measured": sorted(own)[1]} for name, own in times.items()}
    for target in finished(options.out):  # of the table's network, as those of --also need not be
        found[target.name]["predicted"] = table.predict(networks[target.name])
    write_text(options.out / "times.json", json.dumps(found, indent=1))
    for name, own in found.items():
        print(f"{name}: measured {own['measured']:.3f} ms" + (f", predicted {own['predicted']:.3f} ms" if "predicted" in own else ""))


def draw(options: argparse.Namespace) -> None:
    """Draw a line for every data set and kind."""
    path = options.out / "times.json"
    times = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    rows = [row(target) | {"ms": times.get(target.name, {}).get("measured")} for target in finished(options.out)]
    figure = new_figure(7.5, 4.5)
    axes = figure.add_subplot()
    several = len({one["data"] for one in rows}) > 1
    for data, kind in sorted({(one["data"], one["kind"]) for one in rows}):
        own = [one for one in rows if (one["data"], one["kind"]) == (data, kind)]
        at = [one["budget"] if one["ms"] is None else one["ms"] for one in own]
        accuracy = [one["mAP50-95"] for one in own]
        bars = [[value - one["interval"][0] for value, one in zip(accuracy, own, strict=True)]]
        bars.append([one["interval"][1] - value for value, one in zip(accuracy, own, strict=True)])
        axes.errorbar(at, accuracy, yerr=bars, marker="o", capsize=2, label=f"{data}, {kind}" if several else kind, color=_COLOURS.get(kind))
    for label, folder in options.also:
        found = json.loads((folder / "metrics.json").read_text("utf-8"))
        low, high = found["interval"]["mAP50-95"]
        if label not in times:
            raise InputError(f"{label}: its time was not measured; give --also {label}=.. to time, too")
        at, score = times[label]["measured"], found["mAP50-95"]
        axes.errorbar([at], [score], yerr=[[score - low], [high - score]], marker="D", capsize=2, linestyle="", color="#333333")
        axes.annotate(label, (at, score), (8, -4), textcoords="offset points")
    axes.set_xscale("log")
    axes.set_xticks(BUDGETS, [f"{one:g}" for one in BUDGETS])
    axes.minorticks_off()
    axes.set_xlabel("milliseconds per picture" + ("" if times else " (budget)"))
    axes.set_ylabel("mAP50-95 after the last epoch, 95 % interval")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    save_figure(figure, options.out / "frontier.png")


def labelled(text: str) -> tuple[str, Path]:
    """A label and a run's folder, from LABEL=RUN."""
    label, _, folder = text.partition("=")
    if not label or not (Path(folder) / "metrics.json").is_file():
        raise argparse.ArgumentTypeError(f"{text}: expected LABEL=RUN, where RUN is the folder of a training that is done")
    return label, Path(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "time", "draw"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data")
    parser.add_argument("--whole")
    parser.add_argument("--table")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budgets", type=float, nargs="+", default=list(BUDGETS))
    parser.add_argument("--kinds", nargs="+", choices=list(_COLOURS), default=list(_COLOURS))
    parser.add_argument("--more", action="append", default=[])
    parser.add_argument("--also", type=labelled, action="append", default=[], metavar="LABEL=RUN")
    options = parser.parse_args()
    needed = {"run": ("data", "whole", "table"), "time": ("table",), "draw": ()}[options.what]
    if missing := [f"--{name}" for name in needed if getattr(options, name) is None]:
        parser.error(f"{options.what} needs {', '.join(missing)}")
    {"run": run, "time": measure, "draw": draw}[options.what](options)


if __name__ == "__main__":
    main()
