"""The README's Python runs as it stands, and its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from octrim.data.scenes import drawn_scene
from octrim.network.initialize import fresh_model
from tests.checkpoints import save_checkpoint
from tests.data.test_pictures import write

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("index", range(len(re.findall(r"```python\n", README))))
def test_python_examples(tmp_path: Path, index: int) -> None:
    pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[index]
    save_checkpoint(tmp_path / "yolov5n.pt", fresh_model("yolov5n", classes=2), "yolov5n")
    write(tmp_path / "bus.jpg", drawn_scene(0, 120, 90))
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert (tmp_path / "small.safetensors").is_file()
    assert (tmp_path / "small.onnx").is_file()


def test_commands_exist() -> None:
    from octrim.cli import parse

    lines = [line.partition("#")[0].split() for line in re.findall(r"^octrim .*$", README, re.MULTILINE)]
    assert len(lines) >= 5
    for _, *arguments in lines:
        parse(arguments)


def test_links() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
