"""Sizes of a network as C, as this machine's gcc compiles it: sources, object, weights, memory of an instance, deepest stack, compile time.

    python -m benchmarks.c_size --imgsz 320 --keep 1/8 1/4 1

yolov5n for 3 classes with random weights, cut in multiples of 8. The stack is what opening and one picture on one thread
touch of a stack that was filled with a pattern before; the compile time is processor time, the least of `--repeats`.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import tempfile
from pathlib import Path

from octrim.network.cost import network_cost
from octrim.network.initialize import fresh_model
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.targets.c.folder import write_folder
from octrim.targets.c.program import program

_FLAGS = ("-std=c11", "-O3", "-march=native", "-ffp-contract=off", "-pthread")

_STACK = """
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "detector.h"

enum { SIZE = 1 << 20 };
static unsigned char *pixels;
static float *boxes;

static void *work(void *nothing) {
    detector_options options = {.threads = 1};
    detector *instance;
    if (detector_open(&options, &instance)) exit(1);
    detector_run(instance, pixels, boxes);
    detector_close(instance);
    return nothing;
}

int main(void) {
    pixels = calloc(detector_width * detector_height, 3);
    boxes = calloc(detector_boxes * detector_values, sizeof *boxes);
    unsigned char *stack = aligned_alloc(4096, SIZE);
    memset(stack, 0xA5, SIZE);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, stack, SIZE);
    pthread_t thread;
    if (pthread_create(&thread, &attributes, work, NULL)) return 1;
    pthread_join(thread, NULL);
    size_t untouched = 0;
    while (stack[untouched] == 0xA5) untouched++;
    printf("%zu\\n", SIZE - untouched);
}
"""
"""Runs the network on a thread whose stack is filled before, and prints how many bytes of it were touched."""


def main() -> None:
    """Print a Markdown row per fraction."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--keep", nargs="+", default=["1/8", "1/4", "1"])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print("| network | parameters | detector.c, KB | object, KB | weights, KB | maps, KB | scratch per thread, KB | stack, KB | compiling, s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for keep in options.keep:
        print(_row(keep, options.imgsz, options.repeats))


def _row(keep: str, side: int, repeats: int) -> str:
    model = fresh_model("yolov5n", classes=3)
    if keep != "1":
        model = prune(model, plan(model, keep, 8, "random"))
    made = program(model, side, side)
    parameters = network_cost(model.network, side).parameters
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_folder(model, folder, side, side)
        seconds = min(_compiled(folder) for _ in range(repeats))
        source = (folder / "detector.c").stat().st_size
        sections = subprocess.run(["size", "detector.o"], cwd=folder, capture_output=True, text=True, check=True).stdout.splitlines()[1].split()
        (folder / "stack.c").write_text(_STACK)
        subprocess.run(["gcc", *_FLAGS, "-D_GNU_SOURCE", "-o", "stack", "stack.c", "detector.o"], cwd=folder, check=True)
        stack = int(subprocess.run(["./stack"], cwd=folder, capture_output=True, text=True, check=True).stdout)
        code = sum(map(int, sections[:3]))
    numbers = [source, code, made.weights.nbytes, made.map_bytes, 4 * made.scratch, stack]
    shown = " | ".join(f"{number / 1000:,.0f}" for number in numbers)
    return f"| {keep} | {parameters:,} | {shown} | {seconds:.1f} |"


def _compiled(folder: Path) -> float:
    """Seconds of processor time that gcc takes; leaves detector.o."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(["gcc", *_FLAGS, "-c", "detector.c"], cwd=folder, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
