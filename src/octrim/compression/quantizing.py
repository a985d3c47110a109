"""The stage of a compression that makes the small network int8: it is calibrated and, where that alone loses too much, trained with the roundings."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from octrim.compression.job import Job, emptied, evaluated, finished, once, row, sweep
from octrim.compression.trainings import int8_training
from octrim.data.pictures import Readable
from octrim.network.loading import load
from octrim.quantization.calibration import calibrate
from octrim.quantization.chart import save_scale_chart
from octrim.stages import FINETUNE, INT8
from octrim.training.labelled import drawn

MOST_LOST = 0.005
"""mAP50-95 that calibration alone may lose on the validation pictures before `--qat auto` trains the network with the roundings of int8."""

_PICTURES = 200  # as many as `octrim quantize` reads


def quantizing(job: Job, folder: Path) -> dict[str, Any]:
    """Calibrate the fine-tuned network in `calibrate` and, where the options or its loss ask for it, train it with the roundings in `train`.

    The better of the two by mAP50-95 in int8 on the validation part is left. A stage that was killed goes on in the middle of the training.
    """
    preset = job.start.preset
    folder.mkdir(exist_ok=True)
    sweep(folder)
    before = (finished(job.run.path, FINETUNE) or {})["row"]["mAP50-95"]
    found = once(job, folder / "calibrate", _calibration, ["row", "model"])
    after = found["row"]["mAP50-95"]
    scores = {"float32": before, "calibrated": after}
    wanted = preset.qat == "always" or (preset.qat == "auto" and before - after > MOST_LOST)
    job.run.print(f"int8 by calibration alone: mAP50-95 {after:.4f}, in float32 {before:.4f}; {_told(preset.qat, wanted, preset.qat_epochs)}")
    if wanted:
        trained = once(job, folder / "train", partial(int8_training, calibrated=job.run.path / found["model"]), ["row", "model"])
        scores["trained"] = trained["row"]["mAP50-95"]
        better = scores["trained"] > after
        chosen = "the trained network is kept" if better else "the calibrated network is kept, because it is as good or better"
        job.run.print(f"int8 after training with its roundings: mAP50-95 {scores['trained']:.4f}; {chosen}")
        found = trained if better else found
    model = load(job.run.path / found["model"])
    path = folder / INT8.file
    model.save(path)
    return {**row(job, model, path, evaluated(job, model, path, "int8"), found["row"]["epochs"]), "int8": scores}


def _told(qat: str, wanted: bool, epochs: int) -> str:
    """What follows from the loss of the calibration, as a clause."""
    if wanted:
        return f"it trains with the roundings of int8 (epochs: {epochs})"
    if qat == "never":
        return "it does not train with the roundings (--qat never)"
    return f"no training with the roundings is needed, because it loses no more than {MOST_LOST}"


def _calibration(job: Job, folder: Path) -> dict[str, Any]:
    """Calibrate the fine-tuned network on training pictures that the seed draws, as `octrim quantize` does, and evaluate it in int8."""
    emptied(folder)
    model = job.network(FINETUNE)
    readable = Readable(drawn(job.start.train_set, _PICTURES, job.start.config.seed).paths)
    readable.require()
    calibration = calibrate(model, readable)
    for line in readable.failures:
        job.run.print(f"left out: {line}")
    save_scale_chart(calibration.histograms, calibration.clips(), folder / "scales.png")
    quantized, path = calibration.quantized(), folder / INT8.file
    quantized.save(path)
    return row(job, quantized, path, evaluated(job, quantized, path, "int8"), job.start.preset.whole)
