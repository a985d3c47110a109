"""Run folders: what their config.yaml says, and whose it is."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from octrim.commands import COMMANDS
from octrim.commands.pong import PONG
from octrim.errors import InputError
from octrim.report.files import read_run
from octrim.runs import new_run, open_run, require_space, stored_config, typed

LEAVING_FILES = {
    name: command
    for name, command in {**COMMANDS, **{f"pong {name}": command for name, command in PONG.items()}}.items()
    if "project" in command.__dataclass_fields__
}


def test_a_command_is_told_as_a_shell_takes_it() -> None:
    words = ["prune", "--weights", "my runs/ünï/last.safetensors", "--align", 8]
    assert shlex.split(typed(*words)) == ["octrim", *map(str, words)]
    assert typed("val", "--weights", "runs/a-1/best.pt") == "octrim val --weights runs/a-1/best.pt"


def config_of(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((folder / "config.yaml").read_text("utf-8"))


@pytest.mark.parametrize("name", LEAVING_FILES)
def test_config_says_which_command_made_the_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = new_run(LEAVING_FILES[name]())
    assert run.path == Path("runs", name.replace(" ", "-"), "exp")
    assert next(iter(config_of(run.path).items())) == ("command", name)


@pytest.mark.parametrize("name", [name for name in LEAVING_FILES if not name.startswith("pong")])
def test_report_knows_the_command_also_of_a_run_of_0_1(name: str, tmp_path: Path) -> None:
    run = new_run(LEAVING_FILES[name](project=str(tmp_path)))
    assert read_run(run.path).command == name
    content = config_of(run.path)
    del content["command"]
    (run.path / "config.yaml").write_text(yaml.safe_dump(content), "utf-8")
    assert read_run(run.path).command == name
    for wrong in ("pong match", ["train"], None):
        (run.path / "config.yaml").write_text(yaml.safe_dump({**content, "command": wrong}), "utf-8")
        with pytest.raises(InputError, match="not the configuration of an octrim run"):
            read_run(run.path)


@pytest.mark.parametrize("name", ["train", "finetune", "sparsify", "compress", "sensitivity"])
def test_runs_are_resumed_by_their_own_command(name: str, tmp_path: Path) -> None:
    kind = LEAVING_FILES[name]
    run = new_run(kind(project=str(tmp_path), seed=3, data="shapes"))
    asked = kind(resume=str(run.path))
    expected = kind(project=str(tmp_path), seed=3, data="shapes", resume=str(run.path))
    assert stored_config(asked, run.path) == expected
    content = config_of(run.path)
    (run.path / "config.yaml").write_text(yaml.safe_dump({**content, "command": "val"}), "utf-8")
    with pytest.raises(InputError, match=f"config.yaml: not the configuration of an octrim {name} run; it is one of octrim val"):
        stored_config(asked, run.path)
    del content["command"]  # as version 0.1 wrote it
    (run.path / "config.yaml").write_text(yaml.safe_dump(content), "utf-8")
    assert stored_config(asked, run.path) == expected
    del content["val_share"], content["keep_difficult"]  # which it did not know: a single part served for everything
    (run.path / "config.yaml").write_text(yaml.safe_dump(content), "utf-8")
    assert stored_config(asked, run.path) == replace(expected, val_share=0, keep_difficult=True)
    (run.path / "config.yaml").write_text(yaml.safe_dump({**content, "seed": "3"}), "utf-8")
    with pytest.raises(InputError, match="config.yaml: seed is '3', expected a whole number"):
        stored_config(asked, run.path)


def test_space_is_asked_of_the_folder_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's folder need not exist yet; a disk that cannot be asked is taken to have space."""
    asked: list[Path] = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=1000)

    monkeypatch.setattr("octrim.runs.shutil.disk_usage", usage)
    require_space(tmp_path / "a" / "b", 1000)
    with pytest.raises(InputError, match=rf"^{re.escape(str(tmp_path / 'a' / 'b'))}: 0 MB are free on this disk, and the run needs about 2 MB$"):
        require_space(tmp_path / "a" / "b", 2_000_000)
    assert asked == [tmp_path, tmp_path]

    def unknown(path: Path) -> SimpleNamespace:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("octrim.runs.shutil.disk_usage", unknown)
    require_space(tmp_path, 10**15)


@pytest.mark.skipif(sys.platform == "win32", reason="no fcntl")
def test_two_processes_do_not_work_on_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one is refused, whether it goes on with the run or begins anew in its folder; a process that is killed gives the run back."""
    monkeypatch.setattr("octrim.runs._PATIENCE", 0.2)
    config = COMMANDS["val"](project=str(tmp_path), name="a")
    folder = new_run(config).path
    (folder / "log.txt").write_text("a line\n", "utf-8")
    program = "import sys; from octrim.runs import open_run; run = open_run(sys.argv[1]); print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "ready\n"
        for again in (lambda: open_run(folder), lambda: new_run(replace(config, exist_ok=True))):
            with pytest.raises(InputError, match=f"^{re.escape(str(folder))}: another process is working on this run$"):
                again()
        assert (folder / "log.txt").read_text("utf-8") == "a line\n"
        other.kill()
    first = open_run(folder)
    second = open_run(folder)  # in one process a run may be in hand twice
    del first
    second.print("another line")
    assert (folder / "log.txt").read_text("utf-8") == "a line\nanother line\n"
