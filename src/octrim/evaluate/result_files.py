"""The files that an evaluation leaves in a folder: metrics.json, curves.json, predictions.json and the pictures of the curves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from octrim.atomic import replacing, write_text
from octrim.data.dataset import Dataset
from octrim.evaluate.curves import save_confusion, save_f1, save_precision_recall
from octrim.evaluate.evaluation import Evaluation
from octrim.evaluate.matching import confusion_matrix
from octrim.evaluate.metrics import recall_curves_json


def write_evaluation(folder: Path, dataset: Dataset, result: Evaluation, weights: str | None = None) -> None:
    """Write `metrics.json`, `curves.json`, `predictions.json` and the pictures of the curves into a folder.

    weights: name of the file in this folder that was evaluated, for `metrics.json`; None where the network lies elsewhere.
    """
    content = result.to_json() | ({} if weights is None else {"weights": weights})
    write_text(folder / "metrics.json", json.dumps(content, indent=1, ensure_ascii=False))
    write_text(folder / "curves.json", json.dumps(recall_curves_json(result.matches, result.ap[:, 0], result.names), ensure_ascii=False))
    write_predictions(folder / "predictions.json", dataset, result.detections)
    save_precision_recall(result.matches, result.ap[:, 0], result.names, folder / "pr.png")
    save_f1(result.curves, result.names, folder / "f1.png")
    measured = dataset.without_objects_of(result.unread)
    save_confusion(confusion_matrix(measured, result.detections), result.names, folder / "confusion.png")


def write_predictions(path: Path, dataset: Dataset, detections: Sequence[np.ndarray]) -> None:
    """Write COCO results under the data set's own picture and category ids; `bbox` is x, y, width, height in pixels."""
    # backslashreplace: file names that are no text, and lone surrogates, come out as JSON's own escapes.
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
        separator = "["
        for picture, found in zip(dataset.picture_ids, detections, strict=True):
            for x1, y1, x2, y2, confidence, label in found.tolist():
                entry = {"image_id": picture, "category_id": dataset.category_ids[int(label)]}
                entry |= {"bbox": [round(side, 3) for side in (x1, y1, x2 - x1, y2 - y1)], "score": round(confidence, 5)}
                file.write(separator + json.dumps(entry, ensure_ascii=False))
                separator = ",\n"
        file.write("]\n" if separator != "[" else "[]\n")
