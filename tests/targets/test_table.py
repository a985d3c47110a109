"""Every target of the table is held to the reference; and a new one is a folder and a line, which everything else then knows of."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import octrim
from octrim.data.scenes import drawn_scene
from octrim.deploy.export import export
from octrim.doctor.trials import small_model
from octrim.errors import InputError
from octrim.quantization.calibration import quantize
from octrim.targets.opening import open_session
from octrim.targets.options import Execution
from octrim.targets.table import MODULES, TARGETS, live_targets, runtimes
from octrim.targets.target import Order, Target
from tests.targets.tensorrt_standin import VERSIONS, installed

ROOT = Path(octrim.__file__).parents[2]
SIZE = (64, 96)


@pytest.fixture(scope="module")
def model() -> octrim.Model:
    """Every op, lively weights, int8 scales."""
    return quantize(small_model(), [drawn_scene(seed, 90, 120) for seed in range(3)])


@pytest.fixture(scope="module")
def batch() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (1, *SIZE, 3), np.uint8)


@pytest.fixture
def stand_in() -> Iterator[None]:
    with installed(VERSIONS[-1]):
        yield


CASES = [(name, precision) for name in TARGETS for precision in TARGETS[name].precisions]


def runnable(target: Target) -> Target:
    """Skips the test where this machine cannot write or run the target."""
    try:
        target.version()
    except (ImportError, InputError) as error:
        pytest.skip(f"{target.program} is not installed: {error}")
    if target.obstacle() is not None:
        pytest.skip(f"{target.program}: {target.obstacle()}")
    return target


@pytest.mark.slow
@pytest.mark.parametrize(("name", "precision"), CASES)
def test_every_target_computes_what_the_reference_does(
    name: str, precision: str, model: octrim.Model, batch: np.ndarray, tmp_path: Path, stand_in: None
) -> None:
    target = runnable(TARGETS[name])
    path = tmp_path / (f"made{target.ending}" if target.ending else name)
    report = export(model, path, name, precision, SIZE)
    assert (report.format, report.precision, report.not_compared) == (name, precision, None)
    assert report.bytes == sum((tmp_path / file).stat().st_size for file in _files(tmp_path))
    assert [one for one in TARGETS if TARGETS[one].find(path)] == [name]
    session = open_session(path)
    try:
        assert (session.info.names, session.info.stride, session.info.size) == (model.names, model.network.stride, SIZE)
        assert session.info.network == model.network
        found, expected = session(batch), open_session(model, "numpy")(batch)
    finally:
        session.close()
    scores = np.abs(found - expected)[..., 4:]
    assert scores.max() < {"fp32": 1e-4, "fp16": 2e-2, "int8": 1.0}[precision]
    assert np.sqrt((scores**2).sum() / (expected[..., 4:] ** 2).sum()) < {"fp32": 1e-4, "fp16": 2e-2, "int8": 0.3}[precision]
    if precision != "int8":
        assert np.abs(found - expected)[..., :4].max() < {"fp32": 1e-2, "fp16": 2.0}[precision]


def _files(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", TARGETS)
def test_what_every_target_says_of_itself(name: str) -> None:
    target = TARGETS[name]
    assert target.name == name
    assert isinstance(target, Target)
    assert "fp32" in target.precisions
    assert re.fullmatch(r"(\.[a-z0-9]+)?", target.ending)
    assert all(isinstance(text, str) and text for text in (target.what, target.purpose, target.runtime, target.program, target.install))
    assert set(target.also_opens) <= set(TARGETS)
    assert target.judge("fp32")[0] in runtimes()
    assert target.find(Path("nothing") / "here.safetensors") is None


def test_runtimes_and_endings_are_unique() -> None:
    endings = [target.ending for target in TARGETS.values() if target.ending]
    assert len(set(endings)) == len(endings)
    live = [target.runtime for target in TARGETS.values() if target.live]
    assert len(set(live)) == len(live)
    assert next(iter(live_targets())) == runtimes()[0] == "openvino"


@pytest.mark.slow
@pytest.mark.parametrize("runtime", live_targets())
def test_live_runtimes_offer_what_they_say(runtime: str, model: octrim.Model, batch: np.ndarray) -> None:
    target = runnable(live_targets()[runtime])
    for precision in ("fp32", "bf16", "fp16", "int8"):
        if precision not in target.live:
            with pytest.raises(InputError, match=f"{runtime} runs in {', '.join(target.live)}; {precision} was asked for"):
                open_session(model, runtime, precision)
        elif precision in ("fp32", "int8"):  # the others hang on the processor
            assert open_session(model, runtime, precision)(batch).shape == open_session(model, "numpy")(batch).shape


@pytest.mark.slow
def test_what_cannot_run_here_is_written_and_said_to_be_uncompared(model: octrim.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(TARGETS["onnx"]), "obstacle", lambda self: "there is no compiler here")
    report = export(model, tmp_path / "m.onnx", imgsz=SIZE)
    assert (report.not_compared, report.pictures, report.reference) == ("there is no compiler here", 0, "")
    assert report.bytes == (tmp_path / "m.onnx").stat().st_size


def test_orders_that_a_target_cannot_carry_out(model: octrim.Model, tmp_path: Path) -> None:
    """For every target: precisions, batches and names that it does not have."""
    for name, target in TARGETS.items():
        path = tmp_path / (f"made{target.ending}" if target.ending else name)
        with pytest.raises(InputError, match="precision 'int3' is unknown"):
            export(model, path, name, "int3")
        with pytest.raises(InputError, match="expected a f"):
            export(model, tmp_path / "made.xyz", name)
        for batch in (None, 2) if target.one_picture else ():
            with pytest.raises(InputError, match="takes one picture at a time, and programs call it in a loop: leave out --batch and --dynamic"):
                export(model, path, name, batch=batch)
        if not target.any_batch:
            with pytest.raises(InputError, match="must know the most pictures"):
                export(model, path, name, batch=None)
        if not target.batch_range:
            with pytest.raises(InputError, match="only for tensorrt"):
                export(model, path, name, batch=(1, 2, 3))
    with pytest.raises(InputError, match="format 'pickle' is unknown; known are onnx, openvino"):
        export(model, tmp_path / "made", "pickle")
    assert not list(tmp_path.iterdir())


def test_the_documentation_lists_every_target() -> None:
    table = (ROOT / "docs/deploy.md").read_text("utf-8")
    for name in TARGETS:
        assert f"`octrim export --weights W --format {name}" in table, name


def test_order_has_no_options_by_default() -> None:
    assert Order("fp32", 64, 64) == replace(Order("fp32", 64, 64, 1), options=None)
    assert Execution().runtime is None


# A new target --------------------------------------------------------------------------------------------------------------------------------------

TOY = '''
"""The target `npz`: the model file under another name, run by NumPy."""

from octrim.targets.target import Target


class NpzTarget(Target):
    name = "npz"
    what = "a toy"
    purpose = "a toy for NumPy"
    ending = ".npz"
    runtime = "toyish"
    program = "Toy runtime"
    live = ("fp32",)
    install = "nothing to install"

    def write(self, model, path, order):
        import numpy as np

        model.save(path.with_suffix(".safetensors"))
        np.savez(path, size=(order.height, order.width), model=np.frombuffer(path.with_suffix(".safetensors").read_bytes(), np.uint8))
        path.with_suffix(".safetensors").unlink()

    def open(self, path, precision, threads):
        import tempfile

        import numpy as np

        from octrim.network.loading import load

        with np.load(path) as stored, tempfile.TemporaryDirectory() as folder:
            from pathlib import Path

            (Path(folder) / "m.safetensors").write_bytes(stored["model"].tobytes())
            return self.toy(load(Path(folder) / "m.safetensors"), tuple(stored["size"].tolist()))

    def session(self, model, precision, threads):
        return self.toy(model, None)

    def toy(self, model, size):
        from dataclasses import replace

        from octrim.backends.numpy import NumpyOps, decode
        from octrim.network.rows import walk
        from octrim.targets.session import Session, float_batch, model_info

        class ToySession(Session):
            def run(self, batch):
                return decode(model.network, walk(model.network, NumpyOps(model), float_batch(batch)))

        return ToySession(replace(model_info(model, "toyish", "1.0", "fp32"), size=size))

    def version(self):
        return "1.0"


TARGET = NpzTarget()
'''

PROGRAM = """
import json, sys
from pathlib import Path
from octrim.cli import main
import octrim

def run(*arguments):
    print("$", *arguments, flush=True)
    code = main([*arguments])
    assert code == 0, (arguments, code)

run("export", "--help")
run("predict", "--help")
run("export", "--weights", "w.safetensors", "--format", "npz", "--source", "data/images/val", "--verify")
made = "runs/export/exp/model.npz"
run("predict", "--weights", made, "--source", "data/images/val", "--conf", "0.0001", "--save-txt")
run("predict", "--weights", "w.safetensors", "--runtime", "toyish", "--source", "data/images/val", "--conf", "0.0001", "--save-txt")
run("val", "--weights", made, "--data", "data/data.yaml")
run("bench", "--weights", "w.safetensors", made, "--imgsz", "64", "--iterations", "2", "--warmup", "0")
run("bench", "--weights", "w.safetensors", "--runtime", "toyish", "--iterations", "2", "--warmup", "0")
detector = octrim.Detector(made, conf=0.0001)
found = detector.predict("data/images/val/0.png")[0]
print("detected", detector.info.runtime, len(found.confidence), flush=True)
run("doctor", "--json")
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with one more folder and one more line."""
    root = tmp_path_factory.mktemp("house")
    shutil.copytree(Path(octrim.__file__).parent, root / "octrim", ignore=shutil.ignore_patterns("__pycache__"))
    room = root / "octrim/targets/npz"
    room.mkdir()
    (room / "__init__.py").touch()
    (room / "target.py").write_text(TOY)
    table = root / "octrim/targets/table.py"
    first = next(iter(MODULES.items()))
    line = f'    "{first[0]}": "{first[1]}",\n'
    assert line in table.read_text()
    table.write_text(table.read_text().replace(line, f'{line}    "npz": "octrim.targets.npz.target",\n'))
    return root


@pytest.mark.slow
def test_a_target_is_a_folder_and_a_line(house: Path, tmp_path: Path) -> None:
    """Export, predict, val, bench, Detector, doctor and --help know it, without another change."""
    model = replace(small_model(), names=("a", "b"))
    model.save(tmp_path / "w.safetensors")
    _data(tmp_path / "data")
    environment = {**os.environ, "PYTHONPATH": str(house), "COLUMNS": "200"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    said = dict(part.partition("\n")[::2] for part in done.stdout.split("$ ")[1:])
    first, *others = MODULES
    assert ",".join([first, "npz", *others]) in said["export --help"]
    assert "npz: a toy for NumPy" in " ".join(said["export --help"].replace("│", " ").split())
    assert "toyish" in said["predict --help"]
    report = json.loads((tmp_path / "runs/export/exp/export.json").read_text())
    assert (report["format"], report["runtime"], report["not_compared"]) == ("npz", "toyish 1.0", None)
    assert report["reference"].startswith("Paddle ")
    assert report["score_error"] < 1e-4
    labels = [sorted(path.read_text() for path in (tmp_path / "runs/predict" / name / "labels").glob("*.txt")) for name in ("exp", "exp2")]
    assert labels[0] == labels[1]
    assert len(labels[0]) == 2 and all(labels[0])
    assert "mAP50-95" in json.loads((tmp_path / "runs/val/exp/metrics.json").read_text())
    rows = json.loads((tmp_path / "runs/bench/exp/bench.json").read_text())["networks"]
    assert [row["runtime"].split()[0] for row in rows] == ["openvino", "toyish"]
    assert re.search(r"detected toyish [1-9]", done.stdout)
    found: list[dict[str, Any]] = json.loads(said["doctor --json"])
    (toy,) = (check for check in found if check["what"] == "Toy runtime")
    assert toy["state"] == "works"
    assert "differs from NumPy by" in toy["found"]


def _data(folder: Path) -> None:
    """Two pictures with a label each."""
    import cv2

    for index in range(2):
        for kind in ("images", "labels"):
            (folder / kind / "val").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"images/val/{index}.png"), drawn_scene(index, 64, 64))
        (folder / f"labels/val/{index}.txt").write_text("0 .5 .5 .4 .4\n")
    (folder / "data.yaml").write_text("path: .\ntrain: images/val\nval: images/val\nnames: [a, b]\n")
