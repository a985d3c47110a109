"""Material for the tests: real data where it is at hand, networks with lively weights, random networks."""

from __future__ import annotations

import os

# Small networks on several threads spend their time waiting for threads that a busy machine does not run: two cost three times the processor time
# of one. The tests use the other cores by running in several processes; those that need two threads ask for `two_threads`.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from octrim.machine import usable_cores
from tests.figures import unrendered_figures

# The machines that run the tests are noisy: a slow example says nothing.
settings.register_profile("octrim", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
settings.load_profile("octrim")

_ROOT = Path(__file__).parents[1]
_DATA = Path(os.environ.get("OCTRIM_REAL_DATA", _ROOT.parent / "shared" / "data"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Processes of `-n auto`: one more than there are cores, because slow tests wait, for processes that start and for what times out.

    Quick tests wait for nothing: for them another process only imports and collects everything once more.
    """
    waiting = config.option.markexpr != "not slow"
    return min(usable_cores() + waiting, 8)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In parallel, files with many slow tests come first, so that no process is left with a long one in the end."""
    if hasattr(config, "workerinput"):  # a process of pytest-xdist
        slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
        items.sort(key=lambda item: -slow[item.path])


def _real(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"no {path.name}: real data is looked for in the folder that OCTRIM_REAL_DATA names")
    return path


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The index of data sets goes to a folder of the tests, not to the user's cache; tables are as wide as where there is no terminal.

    Processes that run tests share what is compiled from C: its names follow from its contents, and each compilation takes six seconds.
    """
    cache, base = tmp_path_factory.mktemp("cache"), tmp_path_factory.getbasetemp()
    compiled = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compiled"
    compiled.mkdir(exist_ok=True)
    (cache / "octrim").mkdir()
    (cache / "octrim" / "c").symlink_to(compiled, target_is_directory=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        patch.delenv("COLUMNS", raising=False)  # whoever starts the tests may have set it
        yield


@pytest.fixture
def unrendered() -> Iterator[None]:
    """Figures are made and saved as one pixel within the test."""
    with unrendered_figures():
        yield


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Paddle, its oneDNN and what runs beside them compute with two threads within the test."""
    pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")
    from octrim.backends import paddle as backend

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "_THREADS", 2)
        with backend.processor_threads(None):
            yield
    with backend.processor_threads(None):
        pass  # leaving it sets the number that the process started with


@pytest.fixture(scope="session")
def real_weights() -> Path:
    return _real(_DATA / "weights" / "yolov5n.pt")


@pytest.fixture(scope="session")
def real_pictures() -> Path:
    return _real(_DATA / "pictures")


@pytest.fixture(scope="session")
def real_video() -> Path:
    return _real(_DATA / "video" / "traffic.mp4")


@pytest.fixture(scope="session")
def reference() -> dict[str, np.ndarray]:
    """Outputs of the official implementation."""
    with np.load(_real(_DATA.parent / "reference" / "yolov5n_forward.npz")) as stored:
        return dict(stored)
