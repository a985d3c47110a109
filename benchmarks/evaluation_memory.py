"""Memory of `evaluate` over more and more pictures: what must be kept, and whether anything else grows.

nice -n 10 python benchmarks/evaluation_memory.py [--count 5000] [--steps 5] [--detections 200] [--bootstrap 1000]

Pictures are real files of 320 pixels; a stub stands in for the network and returns predictions at random, of which suppression leaves about
`--detections` per picture. Every count has a process of its own. `detected` is resident memory
when the last picture has been through, `evaluated` when the numbers are there and what was freed has gone back to the system, `peak` the most
in between; all above what the process held after an evaluation of 64 pictures, with the data set read.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np

from octrim.data.dataset import Dataset
from octrim.data.open import open_dataset
from octrim.data.scenes import drawn_scene
from octrim.evaluate.val import evaluate
from octrim.targets.session import Session, SessionInfo

SIDE, CLASSES, OBJECTS = 320, 80, 7


class RandomSession(Session):
    """Predictions at random, as many boxes as YOLOv5 has for the size; most have no objectness, as most have in life."""

    def __init__(self, detections: int) -> None:
        super().__init__(SessionInfo("stub", "0", "fp32", tuple(f"name{index}" for index in range(CLASSES)), 32, SIDE))
        self.candidates = detections + detections // 4  # some are suppressed
        self.generator = np.random.default_rng(0)

    def run(self, batch: np.ndarray) -> np.ndarray:
        count, height, width, _ = batch.shape
        boxes = 3 * sum((height // stride) * (width // stride) for stride in (8, 16, 32))
        predictions = np.zeros((count, boxes, 5 + CLASSES), np.float32)
        for picture in predictions:
            rows = picture[self.generator.choice(boxes, min(self.candidates, boxes), replace=False)]
            rows[:, :2] = self.generator.uniform(0, (width, height), (len(rows), 2))
            rows[:, 2:4] = self.generator.uniform(8, 120, (len(rows), 2))
            rows[:, 4] = self.generator.uniform(0.01, 1, len(rows)) ** 3
            rows[np.arange(len(rows)), 5 + self.generator.integers(0, CLASSES, len(rows))] = 0.9
            picture[: len(rows)] = rows
        return predictions


def make(root: Path, count: int) -> None:
    """Forty different JPEGs, each under many names, and labels of their own."""
    generator = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    contents = [cv2.imencode(".jpg", drawn_scene(seed, SIDE * 3 // 4, SIDE))[1].tobytes() for seed in range(40)]
    for index in range(count):
        (root / "images" / f"{index:06}.jpg").write_bytes(contents[index % len(contents)])
        values = np.column_stack([generator.integers(0, CLASSES, OBJECTS), generator.uniform(0.2, 0.8, (OBJECTS, 2)), np.full((OBJECTS, 2), 0.2)])
        (root / "labels" / f"{index:06}.txt").write_text("".join("%d %.5f %.5f %.5f %.5f\n" % tuple(row) for row in values))  # noqa: UP031
    (root / "all.txt").write_text("".join(f"images/{index:06}.jpg\n" for index in range(count)))


def resident(line: str = "VmRSS") -> float:
    """MiB, from the kernel: the most so far for VmHWM."""
    status = dict(entry.split(":") for entry in Path("/proc/self/status").read_text("ascii", "replace").splitlines() if ":" in entry)
    return int(status[line].split()[0]) / 1024


def settled() -> float:
    """Resident memory without what the C library holds back for later."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    return resident()


def subset(dataset: Dataset, count: int) -> Dataset:
    boxes = slice(int(dataset.starts[count]))
    return dataclasses.replace(
        dataset,
        paths=dataset.paths[:count],
        sizes=dataset.sizes[:count],
        boxes=dataset.boxes[boxes],
        labels=dataset.labels[boxes],
        crowd=dataset.crowd[boxes],
        starts=dataset.starts[: count + 1],
        picture_ids=dataset.picture_ids[:count],
    )


def measure(root: Path, count: int, detections: int, bootstrap: int) -> None:
    """Print the numbers of one count as JSON."""
    dataset = subset(open_dataset(root / "data.yaml"), count)
    session = RandomSession(detections)
    evaluate(session, subset(dataset, min(64, count)), bootstrap=min(bootstrap, 10))  # imports, pools, code
    before = settled()
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    detected = [0.0]

    def progress(done: int) -> None:
        detected[0] = resident()

    start = perf_counter()
    result = evaluate(session, dataset, bootstrap=bootstrap, progress=progress)
    seconds, peak, after = perf_counter() - start, resident("VmHWM"), settled()
    arrays = [getattr(result.matches, field.name) for field in dataclasses.fields(result.matches)]
    found = sum(sys.getsizeof(rows) + (rows.nbytes if rows.base is not None else 0) for rows in result.detections)
    matches = sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))
    per_picture = sum(map(len, result.detections)) / count
    print(json.dumps([detected[0] - before, after - before, peak - before, found / 2**20, matches / 2**20, per_picture, seconds, before]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--detections", type=int, default=200)
    parser.add_argument("--bootstrap", type=int, default=1000)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS, metavar=("ROOT", "COUNT"))
    options = parser.parse_args()
    if options.measure:
        measure(Path(options.measure[0]), int(options.measure[1]), options.detections, options.bootstrap)
        return
    if not Path("/proc/self/status").exists():
        sys.exit("resident memory is read from /proc, which Linux has")
    counts = [options.count * step // options.steps for step in range(1, options.steps + 1)]
    rows = []
    before = 0.0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        make(root, options.count)
        (root / "data.yaml").write_text(f"val: all.txt\nnames: [{', '.join(f'name{index}' for index in range(CLASSES))}]\n")
        environment = {**os.environ, "XDG_CACHE_HOME": str(Path(folder) / "cache")}
        print("pictures  detected  evaluated    peak   detections  matches   the rest  (MiB)   per picture  seconds")
        for count in counts:
            command = [sys.executable, __file__, "--measure", str(root), str(count)]
            command += ["--detections", str(options.detections), "--bootstrap", str(options.bootstrap)]
            result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            detected, after, peak, found, matches, per_picture, seconds, before = json.loads(result.stdout)
            rows.append((count, detected, after, peak, found, matches, after - found - matches))
            line = f"{count:8} {detected:9.1f} {after:10.1f} {peak:7.1f} {found:12.1f} {matches:8.1f} {rows[-1][-1]:10.1f}"
            print(f"{line}          {per_picture:11.0f} {seconds:8.0f}", flush=True)
    table = np.asarray(rows)
    if len(table) > 1:
        slopes = [1000 * np.polyfit(table[:, 0], column, 1)[0] for column in table[:, 1:].T]
        print("per 1000 {:9.2f} {:10.2f} {:7.2f} {:12.2f} {:8.2f} {:10.2f}".format(*slopes))
    print(f"resident before: {before:.0f} MiB")


if __name__ == "__main__":
    main()
