"""The stage of a compression that tries shapes: each is cut and fine-tuned briefly, the better half with twice the epochs, until one is left."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from octrim.atomic import write_text
from octrim.compression.job import Job, finished, once, row, sweep
from octrim.compression.planning import times_of
from octrim.compression.shapes import Shape, equal_shapes
from octrim.compression.trainings import short_finetuning
from octrim.errors import InputError
from octrim.figures import new_figure, save_figure
from octrim.stages import SEARCH

_COLOURS = ("#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#6a51a3", "#8c8c8c", "#000000", "#b8a700")  # of shapes that were not chosen
_CUT_SHARE = 0.4  # share of a trial's epochs over which channels go


def searching(job: Job, folder: Path) -> dict[str, Any]:
    """Try shapes in rounds. Each trial is a fine-tuning of its own, with its own learning rate from start to end, in `round1-1`, `round1-2`, ..

    In a round every shape that is left trains for the same number of epochs, twice as many as in the round before; the half with the higher mAP50-95
    on the validation part goes on. Trials are kept, and a stage that was killed goes on in the middle of one.
    """
    start = job.start
    folder.mkdir(exist_ok=True)
    sweep(folder)
    shapes = equal_shapes(start.config, start.keep_map, start.uncut, start.preset.search, times_of(start.config), start.preset.widths)
    for number, shape in enumerate(shapes, 1):
        if shape.keep_map:
            write_text(_keep_map_file(folder, number), json.dumps(dict(shape.keep_map), indent=1))
    tries: list[list[dict[str, Any]]] = [[] for _ in shapes]
    left, epochs, turn = list(range(len(shapes))), start.preset.search_epochs, 1
    while len(left) > 1:
        job.run.print(f"round {turn}: {len(left)} shapes, {epochs} epochs each")
        for place in left:
            here = folder / f"round{turn}-{place + 1}"
            found = once(job, here, partial(_trial, shape=shapes[place], number=place + 1, epochs=epochs), ["row"])["row"]
            tries[place].append({"epochs": epochs, **{name: found[name] for name in ("mAP50-95", "mAP50", "macs", "parameters")}})
            job.run.print(
                f"{shapes[place].name}: mAP50-95 {found['mAP50-95']:.4f}, {found['macs'] / 1e6:,.1f} M MACs, {found['parameters']:,} parameters"
            )
        # The earlier shape goes on where two are equally good.
        left = sorted(sorted(left, key=lambda place: -tries[place][-1]["mAP50-95"])[: len(left) // 2])
        epochs, turn = 2 * epochs, turn + 1
    job.run.print(f"shape for the long training: {shapes[left[0]].name}")
    found = {"shapes": [{**shape.to_json(), "tries": own} for shape, own in zip(shapes, tries, strict=True)], "chosen": left[0]}
    save_search_chart(found, folder / "search.png")
    return {"search": found}


def with_chosen_shape(job: Job) -> Job:
    """The job with the options of the shape that the search has chosen in place of its own. Raises InputError for a damaged result."""
    folder = job.folder(SEARCH)
    found = (finished(job.run.path, SEARCH) or {}).get("search", {})
    try:
        content = dict(found["shapes"][found["chosen"]])
        content.pop("tries")
        shape = Shape.from_json(content)
    except (KeyError, TypeError, IndexError, ValueError):
        raise InputError(f"{folder / 'stage.json'}: damaged; delete it, and the stage is done again") from None
    path = _keep_map_file(folder, found["chosen"] + 1)
    config = replace(job.start.config, **_options(shape, path))
    preset = replace(job.start.preset, widths=shape.widths)
    return replace(job, start=replace(job.start, config=config, preset=preset, keep_map=dict(shape.keep_map)))


def save_search_chart(found: dict[str, Any], path: Path) -> None:
    """Write a PNG with a line per shape, mAP50-95 over the epochs of its trials; the shape that was chosen is drawn strongly."""
    figure = new_figure(8.5, 4.8)
    axes = figure.add_subplot()
    for place, shape in enumerate(found["shapes"]):
        chosen = place == found["chosen"]
        epochs, scores = [one["epochs"] for one in shape["tries"]], [one["mAP50-95"] for one in shape["tries"]]
        name = f"{shape['name']} (chosen)" if chosen else shape["name"]
        color, width = ("#d55e00", 2.6) if chosen else (_COLOURS[place % len(_COLOURS)], 1.2)
        axes.plot(epochs, scores, marker="o", label=name, color=color, linewidth=width, zorder=3 if chosen else 2)
    axes.set_xscale("log", base=2)
    ticks = sorted({one["epochs"] for shape in found["shapes"] for one in shape["tries"]})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("epochs of the trial")
    axes.set_ylabel("mAP50-95 on the validation part")
    axes.set_title(f"{len(found['shapes'])} shapes that cost the same; the better half of each round goes on", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save_figure(figure, path)


def _trial(job: Job, folder: Path, shape: Shape, number: int, epochs: int) -> dict[str, Any]:
    """Cut the original to a shape and fine-tune it, within one training."""
    options = _options(shape, _keep_map_file(folder.parent, number))
    done = short_finetuning(job, folder, epochs, max(round(_CUT_SHARE * epochs), 1), options)
    return row(job, done.model, folder / done.weights.name, done.evaluation, None)


def _options(shape: Shape, keep_map: Path) -> dict[str, Any]:
    """A shape as options of `octrim finetune` and `octrim compress`. keep_map: the file that the shape's keep-map is in, where it has one."""
    options = {"drop": shape.drop, "levels": shape.levels, "keep": shape.keep, "budget": shape.budget, "widths": shape.widths}
    return {**options, "keep_map": str(keep_map) if shape.keep_map else None}


def _keep_map_file(folder: Path, number: int) -> Path:
    return folder / f"keep-map-{number}.json"
