"""Pages by task work when typed: their commands and programs run one after another, in a folder that has what the page says it needs.

What takes hours is made small here: pictures of 64 px, one epoch, a few rounds. A compression checks all that it checks,
and takes the results of its stages from a run that was made once for all pages. What cannot run in a test stands in `ELSEWHERE`, with the reason.
"""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from octrim.cli import main
from octrim.compression.job import Job
from octrim.data.scenes import drawn_scene
from octrim.latency.table import write_table
from octrim.network.initialize import fresh_model
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.stages import Stage
from octrim.targets.c.compiler import has_compiler
from tests.checkpoints import save_checkpoint
from tests.data.test_pictures import write
from tests.figures import unrendered_figures
from tests.latency.analytic import exact_table
from tests.targets.tensorrt_standin import VERSIONS, installed
from tests.training.conftest import draw_shapes

ROOT = Path(__file__).parents[1]

PAGES = [
    "README.md",
    "docs/quickstart.md",
    "docs/python.md",
    "docs/speed.md",
    "docs/int8.md",
    "docs/fit-in-2-ms.md",
    "docs/raspberry-pi.md",
    "docs/jetson.md",
    "docs/microcontroller.md",
    "docs/browser.md",
    "docs/unlabelled.md",
    "docs/paddledetection.md",
    "docs/own-criterion.md",
    "docs/own-target.md",
]

ELSEWHERE = {
    "pip install": "changes the environment",
    "python3 -m venv": "makes another environment",
    "make demo": "takes ten minutes; tests/test_compress_pong.py runs a small one",
    "make": "example programs of the C target are compiled by tests/targets/c/test_c_folder.py",
    "./example": "see make",
    "curl": "loads weights from the network",
    "scp": "copies to another machine",
    "ssh": "runs on another machine",
    "sudo": "changes the clocks of a Jetson",
    "cd": "goes to a folder on another machine",
    "ffmpeg": "another program",
    "vela": "a compiler of Arm's, which tests/targets/test_litert.py runs where it is installed",
    "python -m http.server": "serves until it is stopped",
    "octrim doctor": "tests/test_doctor.py runs it",
    "octrim bench --share": "tests/deploy/test_share.py runs it",
    "octrim bench --latency-table": "measures for minutes; tests/latency/test_measure.py does it shortly",
    "octrim predict --weights pong": "looks at hundreds of frames; tests/test_shipped.py does it",
    "octrim pong play": "opens a window; tests/pong run it",
}
"""Beginnings of commands that are not run, and why."""

SMALL = {
    "--imgsz": "64",
    "--epochs": "1",
    "--train-epochs": "1",
    "--finetune-epochs": "3",
    "--cut-epochs": "2",
    "--rounds": "2",
    "--games": "1",
    "--images": "20",
}
"""Options whose values are replaced by small ones wherever a page gives them."""

ADDED = {
    "train": {"--batch": "4", "--workers": "0", "--epochs": "1"},
    "finetune": {"--batch": "4", "--workers": "0", "--epochs": "1"},
    "compress": {"--workers": "0"},
    "bench": {"--rounds": "2", "--warmup": "1"},
    "quantize": {"--pictures": "2"},
}
"""Options that a command gets where the page does not give them."""


PROGRAMS = {
    r"\bcut_epochs=\d+": "cut_epochs=1",
    r"\bepochs=\d+(?=.*cut_epochs)": "epochs=2",
    r"\bepochs=(?!2\b)\d+": "epochs=1",
    r"\bimgsz=\d+": "imgsz=64",
    r"\bimages=\d+": "images=20",
    r"/paddle\", \d+": '/paddle", 64',
}
"""Patterns of numbers in programs, and the small ones that replace them."""


def shrunk(arguments: list[str]) -> list[str]:
    """The arguments of a command with small numbers in place of the page's."""
    command, *options = [SMALL.get(before, value) for before, value in zip(["", *arguments[:-1]], arguments, strict=True)]
    added = {option: value for option, value in ADDED.get(command, {}).items() if option not in options}
    return [command, *options, *(word for pair in added.items() for word in pair)]


def steps(page: str) -> list[tuple[str, str]]:
    """What a page asks its reader to do, in order: ("command", a line) or ("program", the text of a Python block)."""
    found: list[tuple[str, str]] = []
    for language, block in re.findall(r"^```(sh|python)\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.DOTALL | re.MULTILINE):
        if language == "python":
            found.append(("program", block))
        else:
            lines = block.replace("\\\n", " ").splitlines()
            found += [("command", part) for line in lines if (part := line.strip()) and not part.startswith("#")]
    return found


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Figures are one pixel, and what TensorRT would do is done by its stand-in."""
    pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")
    with pytest.MonkeyPatch.context() as patch, unrendered_figures(), installed(VERSIONS[0]):
        patch.setattr("octrim.training.record.save_curves", lambda *_: None)
        patch.setattr("octrim.training.setup.save_labels", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what pages say they need: weights, a data set under the names that pages use, pictures, and a compression that is done, with its
    whole network and its small one."""
    folder = tmp_path_factory.mktemp("material")
    full = fresh_model("yolov5n", names=("square", "disc"), classes=2)
    whole = prune(full, plan(full, "1/2", 8, "random"))
    save_checkpoint(folder / "yolov5n.pt", whole, "yolov5n")
    slow_device = exact_table(fresh_model("yolov5n").network, 64, 0.001, 2e-6)
    slow_device = replace(slow_device, machine=replace(slow_device.machine, runtime="c", threads=1))  # as the page's command measures it
    assert slow_device.predict(whole.network) > 2  # the milliseconds that the page asks for
    write_table(slow_device, folder / "table.json")
    data = draw_shapes(folder / "bccd", {"train": 8, "val": 4}).parent
    shutil.copytree(data / "images" / "val", data / "JPEGImages")
    shutil.copytree(data, folder / "cells")
    shutil.copytree(data / "JPEGImages", folder / "pictures")
    for name in ("bus.jpg", "camera/1.jpg", "camera/2.jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        write(folder / name, drawn_scene(len(name), 120, 90))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("octrim.compression.pipeline.write_report", lambda run: run / "report.html")
        small = ["--imgsz", "64", "--batch", "4", "--nominal-batch", "4", "--workers", "0", "--bench-rounds", "2"]
        assert main(["compress", "--weights", "yolov5n.pt", "--data", "bccd", "--train-epochs", "1", "--finetune-epochs", "3", *small]) == 0
    shutil.copy(folder / "runs/compress/exp/1-train/last.safetensors", folder / "best.safetensors")
    shutil.copy(folder / "runs/compress/exp/4-finetune/last.safetensors", folder / "small.safetensors")
    return folder


@pytest.fixture
def folder(page: str, material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a page's reader, who has compressed already unless the page does it. Stages are taken from the run in `material`."""
    compresses = any(text.startswith("octrim compress") for _, text in steps(page))
    shutil.copytree(material, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("runs" if compresses else ""))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def taken(job: Job, stage: Stage, *_: object) -> None:
        shutil.copytree(material / "runs/compress/exp" / stage.folder, job.folder(stage))

    monkeypatch.setattr("octrim.compression.pipeline._announced", taken)
    monkeypatch.setattr("octrim.compression.start.rehearse", lambda *_: None)  # takes seconds; the run in `material` did it
    return tmp_path


def do(command: str, folder: Path) -> None:
    """Carry out a line of a page's shell block."""
    words = shlex.split(command, comments=True)
    if any(command.startswith(beginning) for beginning in ELSEWHERE):
        return
    if words[0] == "octrim":
        assert main(shrunk(words[1:])) == 0, command
    elif words[0] == "python":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", words[1:])
            runpy.run_path(words[1], run_name="__main__")
    elif words[0] == "cp":
        shutil.copy(folder / words[1], folder / words[2])
    else:
        pytest.fail(f"{command}: it neither runs here, nor does ELSEWHERE say why not")


def run_program(text: str, folder: Path, names: dict[str, object]) -> None:
    """Run a Python block, small; one whose first line is a comment with a file name is saved under that name instead."""
    title = re.match(r"# (\w+\.py)\b", text)
    if title:
        (folder / title[1]).write_text(text)
        return
    for pattern, value in PROGRAMS.items():
        text = re.sub(pattern, value, text)
    exec(compile(text, "page", "exec"), names)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_page(page: str, folder: Path) -> None:
    if not has_compiler():
        pytest.skip("pages export C, and there is no compiler")
    if "--format web" in (ROOT / page).read_text("utf-8") and not all(map(shutil.which, ("clang", "wasm-ld", "node"))):
        pytest.skip("web pages are compiled by clang and compared in Node")
    names: dict[str, object] = {}
    for kind, text in steps(page):
        if kind == "command":
            do(text, folder)
        else:
            run_program(text, folder, names)
