"""docs/deploy.md: its programs run as they stand, without Paddle; its commands are commands; its links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from octrim.cli import parse
from octrim.data.scenes import drawn_scene
from octrim.targets.onnx.graph import onnx_model
from tests.data.test_pictures import write
from tests.deploy.test_formats import made
from tests.targets.tensorrt_standin import VERSIONS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/deploy.md").read_text("utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

REFUSE = "import sys; sys.modules['paddle'] = None\n"
STAND_IN = f"from tests.targets.tensorrt_standin import installed; context = installed({VERSIONS[0]!r}); context.__enter__()\n"


def run(folder: Path, program: str, *arguments: str) -> list[str]:
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    command = [sys.executable, "-c", REFUSE + program, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("device")
    made().save(folder / "small.safetensors")
    (folder / "model.onnx").write_bytes(onnx_model(made(), 64, 64, None).SerializeToString())
    for seed, name in enumerate(("a.png", "b.png")):
        write(folder / name, drawn_scene(seed, 60, 90))
    return folder


@pytest.mark.slow
def test_detect_with_onnx_and_with_an_engine(folder: Path) -> None:
    expected = run(folder, PROGRAMS[0], "model.onnx", "a.png")
    assert len(expected) > 5
    assert all(re.fullmatch(r"a\.png class\d [01]\.\d\d( -?\d+){4}", line) for line in expected)
    build = "from octrim.cli import main; assert main(['export', '--weights', 'small.safetensors', '--format', 'tensorrt']) == 0\n"
    told = run(folder, STAND_IN + build + PROGRAMS[0], "runs/export/exp/model.engine", "a.png")
    found = [line for line in told if line.startswith("a.png")]
    assert found == expected


@pytest.mark.slow
def test_batches(folder: Path) -> None:
    lines = run(folder, PROGRAMS[1])
    assert len(lines) > 10
    assert all(re.fullmatch(r"class\d [01]\.\d+ \[.*\]", line) for line in lines)


def test_commands_exist() -> None:
    lines = re.findall(r"^octrim .*$", PAGE, re.MULTILINE) + re.findall(r"`(octrim \w+ --[^`]*)`", PAGE)
    assert len(lines) > 10
    for line in lines:
        parse(shlex.split(line.partition("#")[0])[1:])


def test_links() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
