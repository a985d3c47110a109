"""What a network in integers takes on microcontrollers: flash, RAM and instructions on Cortex-M, TFLite Micro's arena, cycles and memory of Ethos-U.

    python -m benchmarks.microcontroller [--imgsz 160 --processors cortex-m4]      # yolov5n for 3 classes cut to 1/8, random weights, SiLU and ReLU
    python -m benchmarks.microcontroller --weights runs/quantize/exp/model.safetensors --imgsz 96 160

Prints two Markdown tables. The first is of the C file, compiled by arm-none-eabi-gcc and run by qemu, which counts instructions, not cycles. The
second is of the `.tflite` file: the arena is what the recording allocator of TFLite Micro tells on this machine, cycles and memory are what Arm's
compiler vela estimates for an Ethos-U55-128. Random weights are calibrated on drawn pictures. What weights change is flash with SiLU, by the number
of different tables, and instructions by a percent.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from octrim.data.scenes import drawn_scene
from octrim.network.adapt import with_activation
from octrim.network.cost import network_cost
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.network.yolov5 import yolov5_network
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.quantization.calibration import quantize
from octrim.targets.litert.file import litert_file
from tests.networks import lively_model
from tests.targets.c.material import calm
from tests.targets.c.test_c_integers import run_on_cortex_m

BOARDS = {"cortex-m3": "mps2-an385", "cortex-m4": "mps2-an386", "cortex-m7": "mps2-an500"}
"""Boards of qemu by their processor."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="a quantized network; default: drawn at random, once with SiLU and once with ReLU")
    parser.add_argument("--imgsz", type=int, nargs="+", default=[96, 128, 160])
    parser.add_argument("--processors", nargs="+", default=["cortex-m4", "cortex-m7", "cortex-m3"], choices=BOARDS)
    options = parser.parse_args()
    networks = [*quantized(options.weights, options.imgsz)]
    print("| processor, activation, pixels | multiply-adds, M | flash, KB | RAM, KB | stack, bytes | instructions a picture, M |")
    print("|---|---|---|---|---|---|")
    for processor in options.processors:
        for name, side, model in networks:
            print(f"| {processor}, {name}, {side} | {_macs(model, side)} | {_cortex_m(model, side, processor)} |", flush=True)
    print("\n| activation, pixels | MACs, M | file, kB | TFLM arena, kB | Ethos-U55-128: cycles | ms | SRAM, KiB | flash, KiB |")
    print("|---|---|---|---|---|---|---|---|")
    for name, side, model in networks:
        content = litert_file(model, side, side, "int8")
        print(
            f"| {name}, {side} | {_macs(model, side)} | {len(content) / 1000:.0f} | {arena(content, side) / 1000:.0f} | {_ethos_u(content)} |",
            flush=True,
        )


def quantized(weights: Path | None, sides: list[int]) -> Iterator[tuple[str, int, Model]]:
    """Networks with scales: a name, the picture's side in pixels, the network."""
    if weights is not None:
        model = load(weights)
        for side in sides:
            yield weights.parent.name, side, model
        return
    whole = lively_model(yolov5_network("yolov5n", 3))
    small = calm(prune(whole, plan(whole, "1/8", 8)))
    for name, model in (("SiLU", small), ("ReLU", with_activation(small, "relu"))):
        for side in sides:
            yield name, side, quantize(model, [drawn_scene(seed, side, side) for seed in range(2)], imgsz=side)


def _macs(model: Model, side: int) -> str:
    return f"{network_cost(model.network, side).macs / 1e6:.1f}"


def _cortex_m(model: Model, side: int, processor: str) -> str:
    """Cells of flash, RAM, stack and instructions."""
    image = np.ascontiguousarray(drawn_scene(0, side, side)[:, :, ::-1])
    with tempfile.TemporaryDirectory() as folder:
        _, takes = run_on_cortex_m(model, image, Path(folder), processor, BOARDS[processor])
    return f"{takes['flash'] / 1000:.0f} | {takes['ram'] / 1000:.0f} | {takes['stack']} | {takes['instructions'] / 1e6:.1f}"


def arena(content: bytes, side: int) -> int:
    """Bytes of the arena that TFLite Micro's recording allocator tells, in a process of its own, because it prints them to its stderr."""
    program = (
        "import sys, numpy\nfrom tflite_micro.python.tflite_micro import runtime\n"
        "it = runtime.Interpreter.from_bytes(sys.stdin.buffer.read(), arena_size=1 << 24)\n"
        f"it.set_input(numpy.zeros((1, {side}, {side}, 3), numpy.int8), 0)\nit.invoke()\nit.print_allocations()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], input=content, capture_output=True, check=True, env=os.environ)
    told = re.search(rb"Arena allocation total (\d+) bytes", done.stderr + done.stdout)
    assert told is not None, done.stderr[-2000:]
    return int(told[1])


def _ethos_u(content: bytes) -> str:
    """Cells of cycles, milliseconds, SRAM and flash on an Ethos-U55-128, by vela."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "m.tflite").write_bytes(content)
        run = "from ethosu.vela.vela import main; main()"
        command = [sys.executable, "-c", run, "--accelerator-config", "ethos-u55-128", "--output-dir", name, "m.tflite"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        assert "CPU operators = 0 (0.0%)" in done.stdout, done.stdout[-2000:]
        (summary,) = folder.glob("m_summary_*.csv")
        with summary.open() as lines:
            (row,) = csv.DictReader(lines)
    cycles, memory = float(row["cycles_total"]), [float(row[key]) for key in ("sram_memory_used", "off_chip_flash_memory_used")]
    return f"{cycles:,.0f} | {cycles / 500_000:.2f} | {memory[0]:.0f} | {memory[1]:.0f}"


if __name__ == "__main__":
    main()
