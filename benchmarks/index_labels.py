"""Time and memory of reading a YOLO data set of many small files: cold, cached, and after one label has changed.

python benchmarks/index_labels.py [--count 100000] [--rows 7] [--workers 2]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

MEASURE = """
import json, resource, sys
from time import perf_counter, process_time
from octrim.data.open import open_dataset
before, processor = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, process_time()
start = perf_counter()
dataset = open_dataset(sys.argv[1], workers=json.loads(sys.argv[2]))
seconds = perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
children = resource.getrusage(resource.RUSAGE_CHILDREN)
processor = process_time() - processor + children.ru_utime + children.ru_stime
print(json.dumps([seconds, processor, before / 1024, peak / 1024, children.ru_maxrss / 1024, len(dataset), len(dataset.boxes)]))
"""


def make(root: Path, count: int, rows: int) -> None:
    """Pictures are hard links to one JPEG of 64x48 pixels; labels are files of their own."""
    generator = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (root / kind / "val").mkdir(parents=True)
    encoded = cv2.imencode(".jpg", generator.integers(0, 256, (48, 64, 3), np.uint8))[1].tobytes()
    first = root  # of every 10,000 pictures, the one that has a file of its own
    for index in range(count):
        if index % 10000 == 0:  # a file system holds only so many links to one file
            first = root / "images" / "val" / f"{index:07}.jpg"
            first.write_bytes(encoded)
        else:
            os.link(first, root / "images" / "val" / f"{index:07}.jpg")
        extent = generator.uniform(0.02, 0.3, (rows, 2))
        values = np.column_stack([generator.integers(0, 80, rows), generator.uniform(0.15, 0.85, (rows, 2)), extent])
        text = "".join("%d %.6f %.6f %.6f %.6f\n" % tuple(row) for row in values)  # noqa: UP031 (as such files are written)
        (root / "labels" / "val" / f"{index:07}.txt").write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=7)
    parser.add_argument("--workers", type=int)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        make(root, options.count, options.rows)
        environment = {**os.environ, "XDG_CACHE_HOME": str(Path(folder) / "cache")}
        command = [sys.executable, "-c", MEASURE, str(root), json.dumps(options.workers)]
        for name in ("cold", "cached", "one label changed"):
            if name == "one label changed":
                (root / "labels" / "val" / f"{options.count // 2:07}.txt").write_text("0 .5 .5 .25 .25\n")
            result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            seconds, processor, before, peak, child, pictures, boxes = json.loads(result.stdout)
            memory = f"memory {peak - before:.0f} MiB above {before:.0f}, a worker process {child:.0f}"
            time = f"{seconds:6.2f} s ({1e6 * seconds / pictures:.1f} us per picture), processor time {processor:.2f} s"
            print(f"{name:18} {time}, {memory}; {pictures} pictures, {boxes} boxes")
        size = sum(path.stat().st_size for path in (Path(folder) / "cache").rglob("*.npz"))
        print(f"index on disk {size / 2**20:.1f} MiB; {len(os.sched_getaffinity(0))} processors")


if __name__ == "__main__":
    main()
