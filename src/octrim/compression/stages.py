"""The stages of a compression. Each works in its own folder, reads what earlier ones left in theirs, and returns what `stage.json` says of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from octrim.atomic import write_text
from octrim.commands import Bench
from octrim.compression.presets import Preset
from octrim.compression.start import Start, keep_of, sparsity
from octrim.data.pictures import Readable, letterboxed, read_picture
from octrim.deploy.bench import bench_command
from octrim.deploy.export import FORMATS, export
from octrim.errors import InputError
from octrim.evaluate.evaluation import Evaluation
from octrim.evaluate.result_files import write_evaluation
from octrim.evaluate.val import evaluate
from octrim.network.cost import network_cost
from octrim.network.initialize import fresh_tensors
from octrim.network.model import Model, load
from octrim.network.rows import Network, Row
from octrim.pong.match import match
from octrim.pong.options import MatchOptions
from octrim.pruning.command import cut, write_plan
from octrim.pruning.importance import Criterion
from octrim.pruning.plan import Plan, composed, parse_fraction, plan
from octrim.runs import Run
from octrim.targets.opening import open_session
from octrim.training.checkpoint import CHECKPOINT
from octrim.training.labelled import drawn
from octrim.training.train import Trained, train

ORIGINAL = "1-train/best.safetensors"
SPARSE = "2-sparsify/best.safetensors"
CUT = "3-prune/model.safetensors"
FINETUNED = "4-finetune/best.safetensors"

_REPAIR_PICTURES = 200
_TAYLOR_PICTURES = 200
_EXPORT_PICTURES = 8
_OPPONENT = "computer:medium"
_POINTS = 3  # of a game: short ones, because many games say more than long ones


@dataclass(frozen=True, eq=False)
class Job:
    """A run at work."""

    run: Run
    start: Start

    def path(self, name: str) -> Path:
        return self.run.path / name


@dataclass(frozen=True)
class Stage:
    """title: one word. folder: in the run's. label: of its row in the summary, or None. work: does it in a folder that may hold remains."""

    title: str
    folder: str
    label: str | None
    work: Callable[[Job, Path], dict[str, Any]]


def stored(folder: Path) -> dict[str, Any] | None:
    """What a finished stage left, or None. Raises InputError for a damaged file."""
    path = folder / "stage.json"
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or "seconds" not in content:
        raise InputError(f"{path}: damaged; delete it, and the stage is done again")
    return content


def once(job: Job, folder: Path, work: Callable[[Job, Path], dict[str, Any]]) -> dict[str, Any]:
    """Do the work unless it is done, which `stage.json` says: it comes last.

    `seconds` is what the work took where it was done at one go, and what it took after the last resume where it was not.
    """
    result = stored(folder)
    if result is None:
        began = perf_counter()
        result = work(job, folder)
        result["seconds"] = round(perf_counter() - began, 2)
        write_text(folder / "stage.json", json.dumps(result, indent=1, ensure_ascii=False))
    return result


def _train(job: Job, folder: Path) -> dict[str, Any]:
    config, preset = job.start.config, job.start.preset
    if preset.train_epochs:
        done = _trained(job, folder, train, preset.train_epochs, weights=config.weights, cfg=config.cfg)
        return _row(job, done.model, folder / "best.safetensors", done.evaluation, preset.train_epochs)
    _empty(folder)
    lineage = (*job.start.base.lineage, {"action": "start", "weights": Path(config.weights or "").name})
    model = replace(job.start.base, lineage=lineage)
    model.save(folder / "best.safetensors")
    return _row(job, model, folder / "best.safetensors", _evaluated(job, model, folder), 0)


def _sparsify(job: Job, folder: Path) -> dict[str, Any]:
    from octrim.training.sparsify import sparsify

    preset = job.start.preset
    options = {**sparsity(job.start.config, preset, job.start.keep_map), **_taught(job), "no_autoanchor": True}
    done = _trained(job, folder, sparsify, preset.sparsify_epochs, weights=str(job.path(ORIGINAL)), **options)
    return _row(job, done.model, folder / "best.safetensors", done.evaluation, preset.train_epochs + preset.sparsify_epochs)


def _prune(job: Job, folder: Path) -> dict[str, Any]:
    """Cut in steps; between them, fine-tune for a while. The plan in the folder is of the network before the first cut against the last one."""
    preset = job.start.preset
    folder.mkdir(exist_ok=True)
    sweep(folder)
    model = load(job.path(SPARSE if preset.sparsify_epochs else ORIGINAL))
    original, whole = model.network, None
    cuts: list[dict[str, Any]] = []
    for step in range(1, preset.iterations + 1):
        here = folder / f"cut{step}" if preset.iterations > 1 else folder
        here.mkdir(exist_ok=True)
        made = _planned(job, model, original, step)
        job.run.print(made.table())
        model, repairs = _cut(job, model, made)
        cuts.append({"criterion": made.settings["criterion"], "repairs": repairs, "channels": made.after.channels})
        whole = made if whole is None else composed(whole, made)
        if preset.iterations > 1:
            write_plan(made, here)
            model.save(here / "model.safetensors")
        if step < preset.iterations:
            job.run.print(f"cut {step} of {preset.iterations} is made; fine-tuning for {preset.step_epochs} epochs")
            between = folder / f"finetune{step}"
            once(job, between, lambda job, between, cut=here: _finetune_step(job, between, cut))
            model = load(between / "best.safetensors")
    assert whole is not None
    if preset.iterations > 1:
        whole = replace(whole, settings={**whole.settings, "iterations": preset.iterations})
    write_plan(whole, folder)
    model.save(folder / "model.safetensors")
    return {**_row(job, model, folder / "model.safetensors", _evaluated(job, model, folder), preset.before_finetune), "cuts": cuts}


def _planned(job: Job, model: Model, original: Network, step: int) -> Plan:
    """The plan of one cut, to the fraction keep^(step / steps) of the original; a budget and a keep-map likewise."""
    config, preset = job.start.config, job.start.preset
    share = Fraction(step, preset.iterations)
    keep, budget = keep_of(config), config.budget
    keep = None if keep is None else stepped(keep, share)
    if budget is not None:
        what, _, value = budget.partition("=")
        budget = f"{what}={stepped(value, share)}"
    keep_map = {pattern: stepped(value, share) for pattern, value in job.start.keep_map.items()}
    size = (model.image_size, model.image_size)
    criterion: str | Criterion = config.criterion or preset.criterion
    if preset.sparsify_epochs and config.criterion is None and step == 1:
        criterion = "bn"  # exact zeros go first; fine-tuning fills them again
    if criterion == "taylor":
        from octrim.training.gradients import taylor_on

        criterion, notes = taylor_on(model, config.data, size, _TAYLOR_PICTURES, config.seed, job.run.console)
        for line in notes:
            job.run.print(line)
    return plan(model, keep, config.align, criterion, config.exclude, keep_map, config.seed, size, budget, original)


def stepped(value: object, share: Fraction) -> str:
    """value^share as text, value itself where the share is 1."""
    if share == 1:
        return str(value)
    return str(Fraction(float(parse_fraction(value, "fraction")) ** float(share)).limit_denominator(10_000))


def _cut(job: Job, model: Model, made: Plan) -> tuple[Model, list[str]]:
    """Cut and repair; and which repairs were made. Where all that goes is dead, it is constant, and its constant in the consumers says it all."""
    preset, seed = job.start.preset, job.start.config.seed
    dead = all(
        not model.tensors[f"{row.name}.bn.weight"][_gone(made, row)].any() if row.norm else not _gone(made, row).any() for row in model.network.convs
    )
    fit, move = preset.reconstruct and not dead, preset.recalibrate and not dead
    pictures = _training_pictures(job, model.image_size) if fit or move else None
    repaired = cut(job.run, model, made, True, pictures if fit else None, pictures if move else None, seed)
    return repaired, ["compensate", *["reconstruct"] * fit, *["recalibrate"] * move]


def _gone(made: Plan, row: Row) -> np.ndarray:
    """Which channels of a convolution the plan cuts, bool `[channels]`."""
    return ~np.isin(np.arange(row.channels), made.kept[row.name])


def _training_pictures(job: Job, size: int) -> np.ndarray:
    """Some that can be read, drawn by the seed: uint8 RGB `[pictures, size, size, 3]`."""
    readable = Readable(drawn(job.start.train_set, _REPAIR_PICTURES, job.start.config.seed).paths)
    readable.require()
    fitted = letterboxed(readable, size, size)
    for line in readable.failures:
        job.run.print(f"left out: {line}")
    return fitted


def _finetune_step(job: Job, folder: Path, cut: Path) -> dict[str, Any]:
    from octrim.training.finetune import finetune

    options = {**_taught(job), "no_autoanchor": True}
    done = _trained(job, folder, finetune, job.start.preset.step_epochs, weights=str(cut / "model.safetensors"), **options)
    return _row(job, done.model, folder / "best.safetensors", done.evaluation, None)


def _finetune(job: Job, folder: Path) -> dict[str, Any]:
    from octrim.training.finetune import finetune

    preset = job.start.preset
    done = _trained(job, folder, finetune, preset.finetune_epochs, weights=str(job.path(CUT)), **_taught(job), no_autoanchor=True)
    return _row(job, done.model, folder / "best.safetensors", done.evaluation, preset.whole)


def _export(job: Job, folder: Path) -> dict[str, Any]:
    """ONNX and OpenVINO, compared with Paddle on validation pictures."""
    _empty(folder)
    model = load(job.path(FINETUNED))
    pictures = []
    for path in job.start.val_set.paths:
        if len(pictures) == _EXPORT_PICTURES:
            break
        try:
            pictures.append(read_picture(path))
        except InputError as error:
            job.run.print(f"left out: {error}")
    reports = {}
    for name in FORMATS:
        report = export(model, folder / ("model.onnx" if name == "onnx" else name), name, imgsz=model.image_size, pictures=pictures or None)
        errors = f"{report.score_error:.2g} in scores, {report.box_error:.2g} px in boxes"
        job.run.print(f"{report.path}: {report.bytes / 1e6:.2f} MB; largest difference to Paddle on {report.pictures} pictures {errors}")
        reports[name] = asdict(report)
    write_text(folder / "export.json", json.dumps(reports, indent=1))
    keys = ("pictures", "runtime", "score_error", "box_error")  # not the bytes: OpenVINO numbers its nodes anew in every process
    return {"export": {name: {key: report[key] for key in keys} for name, report in reports.items()}}


def _bench(job: Job, folder: Path) -> dict[str, Any]:
    """The first and the last network, taking turns, in OpenVINO."""
    weights = (str(job.path(ORIGINAL)), str(job.path(FINETUNED)))
    size, rounds = job.start.base.image_size, job.start.config.iterations_bench
    bench_command(Bench(weights=weights, imgsz=(size,), iterations=rounds, project=str(folder.parent), name=folder.name, exist_ok=True))
    networks = json.loads((folder / "bench.json").read_text("utf-8"))["networks"]
    keys = ("network_p50_ms", "total_p50_ms", "network_speedup", "total_speedup")
    return {"bench": {label: {key: row[key] for key in keys} for label, row in zip(("original", "finetuned"), networks, strict=True)}}


def _match(job: Job, folder: Path) -> dict[str, Any]:
    """The first and the last network each play Pong against the computer, seeing as late as the bench says that they do."""
    _empty(folder)
    bench, config = (stored(job.path("6-bench")) or {})["bench"], job.start.config
    found = {}
    for label, weights in (("original", ORIGINAL), ("finetuned", FINETUNED)):
        latency = bench[label]["total_p50_ms"]
        job.run.print(f"{label} network against {_OPPONENT}: {job.start.preset.match_games} games to {_POINTS} points, {latency:.1f} ms late")
        place = {"project": str(folder), "name": label, "workers": config.workers or None}
        match(
            MatchOptions(
                left=f"vision:{job.path(weights)}",
                right=_OPPONENT,
                games=job.start.preset.match_games,
                points=_POINTS,
                seed=config.seed,
                latency_ms=latency,
                imgsz=(job.start.base.image_size,),
                **place,
            )
        )
        report = json.loads((folder / label / "match.json").read_text("utf-8"))
        found[label] = {"games": report["games"], "wins": report["wins"]["left"], "interval": report["win_rate"]["interval95"]}
        found[label] |= {"points": report["points"], "latency_ms": latency, "ball_recall": report["vision"]["left"]["ball_recall"]}
    return {"match": {"opponent": _OPPONENT, **found}}


def _control(job: Job, folder: Path) -> dict[str, Any]:
    """The small network's table with fresh weights, trained for as many epochs as everything before."""
    small = load(job.path(FINETUNED))
    seed, epochs = job.start.config.seed, job.start.preset.whole
    lineage = ({"action": "initialise", "layout": "table of the compressed network", "seed": seed, "licence": "none: no trained weights"},)
    fresh = replace(small, tensors=fresh_tensors(small.network, seed), lineage=lineage, scales={})
    done = _trained(job, folder, train, epochs, fresh, no_autoanchor=True)
    return _row(job, done.model, folder / "best.safetensors", done.evaluation, epochs)


def _trained(job: Job, folder: Path, function: Callable[..., Trained], epochs: int, initial: Model | None = None, **options: Any) -> Trained:
    """Train, or go on with a training that was killed here; one that had come to its end is only evaluated again.

    initial: what to start from, where no file holds it.
    """
    config = job.start.config
    free = {"workers": config.workers, "cache": config.cache, "device": config.device}
    if (folder / CHECKPOINT).is_file():
        moved = {"teacher": options["teacher"]} if options.get("teacher") else {}  # the run's folder may have another name now
        return function(resume=str(folder), **free, **moved)
    _empty(folder)
    if initial is not None:
        initial.save(folder / "initial.safetensors")
        options["weights"] = str(folder / "initial.safetensors")
    # No patience: the epochs of the stages, and those of the control, are what the summary says.
    common = {"data": config.data, "batch": job.start.preset.batch, "nominal_batch": job.start.preset.nominal_batch, "hyp": config.hyp, "patience": 0}
    if folder.name not in ("1-train", "2-sparsify"):
        preset = job.start.preset
        common |= {"batch": preset.finetune_batch, "nominal_batch": preset.finetune_batch, "lr0": preset.finetune_lr0}
    common |= {"imgsz": (job.start.base.image_size,), "seed": config.seed}
    place = {"project": str(folder.parent), "name": folder.name, "exist_ok": True}
    return function(epochs=epochs, **common, **place, **free, **options)


def _taught(job: Job) -> dict[str, Any]:
    """Options of distillation: the teacher is the network of the first stage."""
    distill = job.start.preset.distill
    return {"distill": distill, "teacher": None if distill == "none" else str(job.path(ORIGINAL))}


def _evaluated(job: Job, model: Model, folder: Path) -> Evaluation:
    """As trainings evaluate what they leave."""
    evaluation = evaluate(open_session(model), job.start.val_set, model.image_size, job.start.preset.batch, seed=job.start.config.seed)
    write_evaluation(folder, job.start.val_set, evaluation)
    return evaluation


def _row(job: Job, model: Model, path: Path, evaluation: Evaluation | None, epochs: int | None) -> dict[str, Any]:
    """A row of the summary: what the network costs at the size it is trained for, and what it finds."""
    assert evaluation is not None  # there is a validation part
    cost = network_cost(model.network, model.image_size)
    found = evaluation.to_json()
    row = {"parameters": cost.parameters, "macs": cost.macs, "channels": cost.channels, "file_bytes": path.stat().st_size}
    row |= {"mAP50": found["mAP50"], "mAP50-95": found["mAP50-95"], "interval": found["interval"]["mAP50-95"], "epochs": epochs}
    return {"row": row, "model": path.relative_to(job.run.path).as_posix()}


def sweep(folder: Path) -> None:
    """Remove what a write that was killed has left."""
    for leftover in folder.glob(".*-*.*"):
        leftover.unlink(missing_ok=True)


def _empty(folder: Path) -> None:
    """An empty folder: what a killed stage may have left does not belong to the next attempt."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()


def stages_of(preset: Preset, control: bool) -> list[Stage]:
    """What a run goes through, in order."""
    stages = [Stage("train", "1-train", "original", _train)]
    if preset.sparsify_epochs:
        stages.append(Stage("sparsify", "2-sparsify", "sparse", _sparsify))
    stages += [Stage("prune", "3-prune", "cut", _prune), Stage("finetune", "4-finetune", "finetuned", _finetune)]
    stages += [Stage("export", "5-export", None, _export), Stage("bench", "6-bench", None, _bench)]
    if preset.match_games:
        stages.append(Stage("match", "7-match", None, _match))
    if control:
        stages.append(Stage("control", "control", "control", _control))
    return stages


FOLDERS = tuple(stage.folder for stage in stages_of(Preset(1, 1, 1, match_games=1), True))
"""Of all stages that there can be, in order."""
