"""What must not happen whatever the machine and the files are: code from files, half files, lost runs, processes that stay behind."""

from __future__ import annotations

import ast
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from octrim.cli import main
from octrim.commands import Prune
from octrim.data.scenes import drawn_scene
from octrim.network.loading import load
from octrim.runs import new_run
from tests.data.test_pictures import make_video, write
from tests.deploy.test_formats import failed, made
from tests.training.conftest import draw_shapes

ROOT = Path(__file__).parents[1]
NAMES = ("große Kiste", "猫", "a b")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    replace(made(), names=NAMES).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a space and letters beyond ASCII in its name; a model, pictures, a video and a data set in it likewise."""
    here = tmp_path / "mein Ordner é 图片"
    (here / "die Bilder").mkdir(parents=True)
    monkeypatch.chdir(here)
    (here / "kleines Modell ü.safetensors").write_bytes(small.read_bytes())
    for index in range(3):
        write(here / "die Bilder" / f"später {index} 图.png", drawn_scene(index, 60, 90))
    make_video(tmp_path / "a.avi", 9).rename(here / "ein Film é.avi")
    data = draw_shapes(here / "Daten é", {"train": 4, "val": 3})
    data.write_text(f"train: images/train\nval: images/val\nnames: {json.dumps(NAMES)}\n", "utf-8")
    return here


def commands(here: Path) -> dict[str, list[str]]:
    """Every command that writes and does not train, on the material of `folder`."""
    weights, pictures, data = (str(here / name) for name in ("kleines Modell ü.safetensors", "die Bilder", "Daten é/data.yaml"))
    size = ["--imgsz", "64"]
    return {
        "predict": ["predict", "--weights", weights, "--source", pictures, "--save-txt", "--save-json", "--save-crop", "--conf", "0.01", *size],
        "video": ["predict", "--weights", weights, "--source", str(here / "ein Film é.avi"), *size],
        "data": ["data", "--check", data],
        "val": ["val", "--weights", weights, "--data", data, "--bootstrap", "0", *size],
        "prune": ["prune", "--weights", weights, "--keep", "1/2"],
        "quantize": ["quantize", "--weights", weights, "--source", pictures, *size],
        "onnx": ["export", "--weights", weights, "--format", "onnx", *size],
        "openvino": ["export", "--weights", weights, "--format", "openvino", *size],
        "paddle": ["export", "--weights", weights, "--format", "paddle", *size],
        "bench": ["bench", "--weights", weights, "--iterations", "1", "--warmup", "0", *size],
    }


COMMANDS = tuple(commands(Path()))


# Nothing in a file is executed.

FORBIDDEN = {
    *(
        "pickle.load",
        "pickle.loads",
        "pickle.Unpickler",
        "_pickle.loads",
        "cPickle.loads",
        "dill.load",
        "dill.loads",
        "joblib.load",
        "cloudpickle.load",
    ),
    *("marshal.load", "marshal.loads", "shelve.open", "torch.load", "paddle.load", "pandas.read_pickle", "numpy.fromfile", "runpy.run_path"),
    *("yaml.unsafe_load", "yaml.full_load", "yaml.UnsafeLoader", "yaml.FullLoader", "yaml.Loader", "yaml.CLoader", "os.system", "os.popen"),
    *("eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec"),
}
MODULES = {"pickle", "_pickle", "cPickle", "dill", "joblib", "cloudpickle", "marshal", "shelve", "torch", "code", "runpy"}


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["src", "benchmarks"])
def test_nothing_is_unpickled_or_evaluated(folder: str) -> None:
    """Names are followed through `import a.b as c`. Calls of the kind `.eval()` of a network are others."""
    seen = 0
    for path in sorted((ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"), str(path))
        names = {"np": "numpy"}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
                names |= {alias.asname or alias.name: f"{module}{alias.name}" for alias in node.names}
                roots = {name.partition(".")[0] for name in ([module] if module else [alias.name for alias in node.names])}
                allowed = {"torch"} if folder == "benchmarks" else set()  # which measures against it
                assert not roots & (MODULES - allowed), f"{path}:{node.lineno} imports {roots}"
        for node in ast.walk(tree):
            where = f"{path}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Attribute | ast.Name):
                seen += 1
                assert dotted(node, names) not in FORBIDDEN, f"{where}: {dotted(node, names)}"
            if isinstance(node, ast.Call):
                name, options = dotted(node.func, names), {keyword.arg: keyword.value for keyword in node.keywords}
                if name == "numpy.load":
                    assert isinstance(options.get("allow_pickle"), ast.Constant) and options["allow_pickle"].value is False, where  # type: ignore[union-attr]
                if name in ("yaml.load", "yaml.load_all"):
                    assert dotted(node.args[1], names) in ("yaml.BaseLoader", "yaml.SafeLoader"), where
                assert "shell" not in options, where
    assert seen > 1000


def dotted(node: ast.AST, names: dict[str, str]) -> str:
    """`a.b.c` with the first name as it was imported; nothing for what is no chain of names."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute) and (home := dotted(node.value, names)):
        return f"{home}.{node.attr}"
    return ""


def test_nothing_is_sent_anywhere(tmp_path: Path) -> None:
    """ONNX Runtime's telemetry leaves a file in the temporary folder as soon as it is imported."""
    program = "import octrim, octrim.targets.onnx.session"
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"} | {"TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    assert not list(tmp_path.iterdir())


def test_a_picture_that_claims_too_much(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = b"IHDR" + struct.pack(">II", 20_000, 20_000) + bytes([8, 2, 0, 0, 0])
    chunks = [header, b"IDAT" + zlib.compress(b"\0" * 1000), b"IEND"]
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)
    Path("bomb.png").write_bytes(bomb)
    told = failed(capsys, "predict", "--weights", "kleines Modell ü.safetensors", "--source", "bomb.png")
    assert "bomb.png: a picture of more than 178,956,970 pixels" in told


# Names and folders of every kind.


@pytest.mark.slow
def test_spaces_and_letters_beyond_ascii(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, arguments in commands(folder).items():
        if name == "paddle":
            pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")
        assert main([*arguments, "--project", "die Läufe 跑", "--name", f"{name} é"]) == 0, capsys.readouterr().err
        assert str(Path("die Läufe 跑") / f"{name} é") in capsys.readouterr().out
    runs = Path("die Läufe 跑")
    assert cv2.imdecode(np.fromfile(runs / "predict é" / "später 0 图.png", "u1"), 1).shape == (60, 90, 3)
    assert {path.name for path in (runs / "predict é" / "crops").iterdir()} <= {"große Kiste", "猫", "a b"}
    assert (runs / "predict é" / "labels" / "später 0 图.txt").is_file()
    assert (runs / "video é" / "ein Film é.mp4").is_file()
    assert load(runs / "prune é" / "model.safetensors").names == NAMES
    for deployable in ("onnx é/model.onnx", "openvino é/openvino", "paddle é/paddle"):
        arguments = ["--weights", str(runs / deployable), "--imgsz", "64", "--project", str(runs), "--name", "von da"]
        assert main(["predict", *arguments, "--source", "die Bilder", "--conf", "0.01", "--save-crop", "--exist-ok"]) == 0
        assert main(["val", *arguments, "--data", "Daten é/data.yaml", "--bootstrap", "0", "--batch", "1", "--exist-ok"]) == 0
        assert list(json.loads((runs / "von da" / "metrics.json").read_text("utf-8"))["per_class"]) == list(NAMES)


def test_runs_that_begin_at_the_same_time(tmp_path: Path) -> None:
    """Every one has a folder of its own, with its own configuration in it."""
    found: list[tuple[int, Path]] = []
    barrier = threading.Barrier(16)

    def begin(number: int) -> None:
        barrier.wait()
        found.append((number, new_run(Prune(project=str(tmp_path), seed=number)).path))

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {path.name for _, path in found} == {"exp", *(f"exp{number}" for number in range(2, 17))}
    assert all(f"seed: {number}\n" in (path / "config.yaml").read_text() for number, path in found)


# Disks.


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """As on a full disk, writing fails in the middle of a file, also that of libraries written in C."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "bench"])  # which writes a kilobyte
def test_a_full_disk(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """One line, which names a file, and nothing that looks whole and is not."""
    if name == "paddle":
        pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")
    with no_file_larger_than(2000):
        told = failed(capsys, *commands(folder)[name], "--project", "runs")
    assert "File too large" in told or "is the disk full?" in told
    assert "runs/exp/" in told or "/octrim-" in told
    left = list(Path("runs").rglob("*"))
    assert not [path for path in left if path.name.startswith(".")]
    assert not [path for path in left if path.name in ("model.safetensors", "model.onnx", "export.json", "ein Film é.mp4")]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="no folder that even root cannot write to")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_that_cannot_be_written(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    if name == "paddle":
        pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")
    assert "/sys/octrim: cannot make the run folder" in failed(capsys, *commands(folder)[name], "--project", "/sys/octrim")


# Ctrl-C.


def pressed(here: Path, arguments: list[str], ready: str, temporary: Path) -> tuple[int, str]:
    """Press Ctrl-C once the file is there, as a terminal does it: for all processes of the group. Exit code, standard error; nobody stays behind."""
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    program = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from octrim.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-c", program, *arguments]
    process = subprocess.Popen(command, cwd=here, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(here.glob(ready)) and not list(temporary.glob(ready)):
        assert process.poll() is None and time.monotonic() < deadline, f"{ready} was never there"
        time.sleep(0.01)
    time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    error = process.communicate(timeout=60)[1].decode()
    time.sleep(0.1)
    left = [pid for pid in Path("/proc").glob("[0-9]*") if f"TMPDIR={temporary}".encode() in read(pid / "environ") and state(pid) not in "ZX"]
    assert not left, [read(pid / "cmdline") for pid in left]
    assert not list(temporary.iterdir())
    return process.returncode, error


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def state(process: Path) -> str:
    return (read(process / "stat").decode().rpartition(")")[2].split() or ["X"])[0]


LONG = {
    "quantize": (["quantize", "--cfg", "yolov5s", "--source", "die Bilder", "--sensitivity", "--imgsz", "640"], "runs/quantize/exp/log.txt"),
    "export": (["export", "--cfg", "yolov5m", "--format", "openvino"], "octrim-*"),
    "train": (["train", "--weights", "kleines Modell ü.safetensors", "--data", "Daten é", "--workers", "2"], "runs/train/exp/train_batch0.jpg"),
    "compress": (
        ["compress", "--weights", "kleines Modell ü.safetensors", "--data", "Daten é", "--workers", "2"],
        "runs/compress/exp/1-train/log.txt",
    ),
}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").is_file(), reason="looks for processes in /proc")
@pytest.mark.parametrize("name", LONG)
def test_ctrl_c_leaves_nobody_behind(folder: Path, tmp_path: Path, name: str) -> None:
    pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")
    arguments, ready = LONG[name]
    more = ["--imgsz", "64", "--batch", "2"] if name in ("train", "compress") else []
    code, error = pressed(folder, [*arguments, *more], ready, tmp_path / "temporary")
    assert (code, error) == (130, f"octrim {arguments[0]}: interrupted\n")


@pytest.mark.slow
def test_ctrl_c_while_an_engine_is_built() -> None:
    """TensorRT prints a KeyboardInterrupt that comes up in its logger, and builds on: it must not come up there."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="the builder of TensorRT for RTX is not installed")
    program = """
import signal, sys
import octrim.cli
from octrim.targets.tensorrt.build import build_engine
from tests.deploy.test_formats import made

class Export:
    def run(self):
        build_engine(made(), 64, 64, progress=lambda *_: signal.raise_signal(signal.SIGINT))

signal.signal(signal.SIGINT, signal.default_int_handler)
octrim.cli.parsed = lambda _: [Export()]
sys.exit(octrim.cli.main(["export"]))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "octrim export: interrupted\n")
