"""A running compression: the data that its stages share, and the results that they leave."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from octrim.atomic import write_text
from octrim.compression.start import Start
from octrim.errors import InputError
from octrim.evaluate.evaluation import Evaluation
from octrim.evaluate.result_files import write_evaluation
from octrim.evaluate.val import evaluate
from octrim.network.cost import network_cost
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.runs import Run
from octrim.stages import Stage
from octrim.targets.opening import open_session

TIMES = {
    "latency_ms": "network_p50_ms",
    "latency_total_ms": "total_p50_ms",
    "speedup": "network_speedup",
    "speedup_total": "total_speedup",
}
"""Names of times in summary.json, and the names that a bench gives to the same times."""


@dataclass(frozen=True, eq=False)
class Job:
    """A compression's run, with the options, data and network that it started from."""

    run: Run
    start: Start

    @property
    def stages(self) -> list[Stage]:
        return self.start.preset.stages(self.start.config.control)

    def folder(self, stage: Stage) -> Path:
        return self.run.path / stage.folder

    def weights(self, stage: Stage) -> Path:
        """Path of the network that a stage leaves or has left."""
        return left(self.run.path, stage)

    def network(self, stage: Stage) -> Model:
        """The network that a finished stage has left."""
        return load(self.weights(stage))


StageWork = Callable[[Job, Path], dict[str, Any]]
"""Function that does a stage's work in its folder, which may hold remains of a killed attempt, and returns the results for `stage.json`."""


def stored(folder: Path, results: Sequence[str] = ()) -> dict[str, Any] | None:
    """Content of the `stage.json` of a finished stage; None where the stage is not finished. results: names of results that it has.

    Raises InputError for a damaged file, and for one that lacks a result.
    """
    path = folder / "stage.json"
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError):
        content = None
    if content is None or not _is_result(content):
        raise InputError(f"{path}: damaged; delete it, and the stage is done again")
    for name in results:
        if name not in content:
            raise InputError(f"{path}: lacks {name}; delete it, and the stage is done again")
    return content


def finished(run: Path, stage: Stage) -> dict[str, Any] | None:
    """Results of a stage, None where it is not finished. run: the run's folder. Raises InputError as `stored` does."""
    return stored(run / stage.folder, stage.results)


def left(run: Path, stage: Stage) -> Path:
    """Path of the network that a stage leaves; of a finished stage its stage.json says it. run: the run's folder."""
    return run / (finished(run, stage) or {}).get("model", stage.weights)


def _is_result(content: object) -> bool:
    """Whether the content of a `stage.json` is valid: the seconds, and those results that the summary reads in detail."""
    if not isinstance(content, dict) or type(content.get("seconds")) not in (int, float) or not 0 <= content["seconds"] < math.inf:
        return False
    kinds = {"row": dict, "model": str, "bench": dict, "bench_c": dict, "match": dict, "cuts": list, "search": dict, "dropping": dict, "int8": dict}
    if any(not isinstance(content.get(name, kind()), kind) for name, kind in kinds.items()):
        return False
    benches = [*content.get("bench", {}).values(), *content.get("bench_c", {}).values()]
    if any(not isinstance(times, dict) or any(type(times.get(name)) not in (int, float) for name in TIMES.values()) for times in benches):
        return False
    games = [won for won in content.get("match", {}).values() if not isinstance(won, str)]  # beside the name of the opponent
    if any(not isinstance(won, dict) or any(type(won.get(name)) is not int for name in ("wins", "games")) for won in games):
        return False
    values = content.get("row")
    if values is None:
        return True
    if "epochs" not in values or type(values["epochs"]) not in (int, type(None)):
        return False
    counts = all(type(values.get(name)) is int for name in ("parameters", "macs", "channels", "file_bytes"))
    interval = values.get("interval")
    scores = (values.get("mAP50"), values.get("mAP50-95"), *(interval if isinstance(interval, list) and len(interval) == 2 else [None]))
    return counts and all(type(score) in (int, float) for score in scores)


def once(job: Job, folder: Path, work: StageWork, results: Sequence[str] = ()) -> dict[str, Any]:
    """Do the work unless it is done already, which `stage.json` tells, because it is written last. results: names of results that the work leaves.

    `seconds` in the result is the time that the work took, or the time since the last resume where it was interrupted.
    """
    result = stored(folder, results)
    if result is None:
        began = perf_counter()
        result = work(job, folder)
        result["seconds"] = round(perf_counter() - began, 2)
        write_text(folder / "stage.json", json.dumps(result, indent=1, ensure_ascii=False))
    return result


def evaluated(job: Job, model: Model, path: Path, precision: str = "fp32") -> Evaluation:
    """Evaluate a network as trainings evaluate their results, and write the files of the evaluation beside it. path: the network's file."""
    folder, session = path.parent, open_session(model, precision=precision)
    evaluation = evaluate(session, job.start.val_set, model.image_size, job.start.preset.batch, seed=job.start.config.seed)
    write_evaluation(folder, job.start.val_set, evaluation, path.name)
    return evaluation


def row(job: Job, model: Model, path: Path, evaluation: Evaluation | None, epochs: int | None) -> dict[str, Any]:
    """A row of the summary: the network's cost at the size that it is trained for, and its evaluation. epochs: epochs of all stages so far."""
    assert evaluation is not None  # a compression always has a validation part
    cost = network_cost(model.network, model.image_size)
    found = evaluation.to_json()
    values = {"parameters": cost.parameters, "macs": cost.macs, "channels": cost.channels, "file_bytes": path.stat().st_size}
    values |= {"mAP50": found["mAP50"], "mAP50-95": found["mAP50-95"], "interval": found["interval"]["mAP50-95"], "epochs": epochs}
    return {"row": values, "model": path.relative_to(job.run.path).as_posix()}


def sweep(folder: Path) -> None:
    """Remove temporary files that a killed write has left in a folder."""
    for leftover in folder.glob(".*-*.*"):
        leftover.unlink(missing_ok=True)


def emptied(folder: Path) -> None:
    """Make the folder empty, because remains of a killed stage do not belong to the next attempt."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
