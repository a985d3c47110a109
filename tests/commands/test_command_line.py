"""The command line as a whole: help, arguments that make no sense, `octrim info`, and disks and pipes that fail."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from octrim.cli import main, parse
from octrim.commands import COMMANDS
from octrim.commands.pong import PONG
from octrim.errors import InputError
from octrim.network.loading import load
from octrim.options import options_of
from tests.commands.running import failed


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [["--help"], *([name, "--help"] for name in COMMANDS), *(["pong", name, "--help"] for name in PONG), ["--version"]]
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys; from octrim.cli import main; code = main(sys.argv[1:]); "
        "print('HEAVY', [m for m in ('numpy', 'cv2', 'paddle', 'openvino', 'onnx', 'onnxruntime', 'matplotlib') if m in sys.modules]); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout
    assert "octrim" in done.stdout


@pytest.mark.parametrize("command", [*([name] for name in COMMANDS), *(["pong", name] for name in PONG)])
def test_help_names_every_option_once_and_what_is_read_first(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "2000")
    assert main([*command, "--help"]) == 0
    lines = [line.strip("│| ") for line in capsys.readouterr().out.splitlines()]
    shown = [word for line in lines if line.startswith("-") for word in re.findall(r"(?:^|, )--([a-z][a-z0-9-]*)", line.partition("  ")[0])]
    options = options_of((PONG if command[0] == "pong" else COMMANDS)[command[-1]])
    named = {name: option.names for name, option in options.items() if option.default is not dataclasses.MISSING}
    assert sorted(word for word in shown if word != "help") == sorted(word for names in named.values() for word in names)
    first = next((name for name in ("weights", "data", "source") if name in named), None)
    assert first is None or shown[1] in named[first]


def test_texts_of_help_have_no_line_breaks_of_their_source(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "2000")
    main(["prune", "--help"])
    assert "wherever they are; or its time, latency=2 (milliseconds) or latency=1/6 (of the whole network's), by --latency" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["prune", "--bogus"], "there is no option --bogus"),
        (["predict", "--conf", "high"], "conf"),
        (["fly"], "fly"),
        (["pong"], "a command is missing; there are play, data, match"),
        (["pong", "play", "speed=fast"], "speed"),
        ([], "predict"),
        (["export", "--format", "tflite"], "tflite"),
        (["prune"], "give either --weights"),
        (["prune", "--weights", "a.pt", "--cfg", "yolov5n"], "give either --weights"),
        (["prune", "--cfg", "yolov5q"], "yolov5q: no such YAML file"),
        (["bench"], "give --weights"),
    ],
)
def test_arguments_that_make_no_sense(capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    assert told in failed(capsys, *arguments)


def test_assignments() -> None:
    config = parse(
        ["predict", "weights=a.pt", "conf-thres=0.5", "classes=0,2", "save_txt=True", "agnostic=0", "imgsz=[480, 640]", "--source", "conf=1.jpg"]
    )
    assert (config.weights, config.conf, config.classes, config.imgsz) == ("a.pt", 0.5, (0, 2), (480, 640))
    assert (config.save_txt, config.agnostic) == (True, False)
    assert config.source == "conf=1.jpg"  # a value stands here, whatever it looks like
    assert parse(["prune", "--cfg", "yolov5n", "--exclude", "model.0", "model.1", "keep=1/2"]).exclude == ("model.0", "model.1")
    config = parse(["predict", "--img", "480", "640", "--conf-thres", "0.1", "--iou-thres", "0.2", "--save-txt", "source=x.jpg", "--exist-ok"])
    assert (config.imgsz, config.conf, config.iou, config.source) == ((480, 640), 0.1, 0.2, "x.jpg")
    with pytest.raises(InputError):
        parse(["predict", "speed=3"])
    with pytest.raises(InputError, match="save_txt is 'maybe', expected True or False"):
        parse(["predict", "save_txt=maybe"])
    # text is taken as it is: patterns and paths have brackets, commas and spaces
    assert parse(["prune", "--cfg", "yolov5n", "exclude=model.[02]"]).exclude == ("model.[02]",)
    assert parse(["bench", "weights=my files/a,b.pt"]).weights == ("my files/a,b.pt",)
    assert parse(["prune", "--budget", "macs=0.1"]).budget == "macs=0.1"
    assert parse(["prune", "budget=macs=0.1"]).budget == "macs=0.1"


def test_info(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--cfg", "yolov5s"]) == 0
    out = capsys.readouterr().out
    assert "7,235,389" in out
    assert "8,216,780,800" in out
    assert "model.24.m.2" in out


def test_info_counts_the_groups_of_a_plans_keep_map(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, keep_map = load("small.safetensors"), {f"model.{number}": "1/2" for number in range(7)}
    few = {"action": "prune", "keep_map": {"model.0": "1/4"}}
    replace(model, lineage=(few, {"action": "prune", "keep_map": keep_map, "seed": 0})).save("mapped.safetensors")
    assert main(["info", "--weights", "mapped.safetensors"]) == 0
    out = capsys.readouterr().out
    assert "action prune, keep_map {'model.0': '1/4'}" in out
    assert "action prune, keep_map of 7 groups, seed 0" in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "redirection", "code", "told"),
    [
        ("--help", "| true", 141, ""),
        ("compress --help", "| true", 141, ""),
        ("--version", "| true", 141, ""),
        ("--version", "> /dev/full", 2, "octrim: error: No space left on device\n"),
        ("--help", "> /dev/full", 2, "octrim: error: No space left on device\n"),
        ("--help", ">&-", 0, ""),
        ("fly", "2>&-", 2, ""),
    ],
)
def test_output_that_nobody_takes(arguments: str, redirection: str, code: int, told: str) -> None:
    line = f'"{sys.executable}" -m octrim {arguments} {redirection}; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, told)


@pytest.mark.slow
def test_full_disks_and_closed_pipes(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "model.safetensors")

    monkeypatch.setattr("octrim.network.model.Model.save", full)
    assert "model.safetensors: No space left on device" in failed(capsys, "prune", "--weights", "small.safetensors")
    if os.geteuid() != 0:  # root may write anywhere
        folder.chmod(0o500)
        try:
            assert "cannot make the run folder" in failed(capsys, "predict", "--weights", "small.safetensors", "--source", "pictures")
        finally:
            folder.chmod(0o700)
