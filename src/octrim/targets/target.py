"""`Target`: one form in which a network can be deployed. Each has a room below `targets/` and a line in `targets/table.py`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from octrim.network.model import Model
    from octrim.targets.session import Session

BatchSizes = int | tuple[int, int, int] | None
"""Pictures per batch that a deployable takes: a number, (fewest, typical, most), or None for any number."""


@dataclass(frozen=True)
class Order:
    """Order to write a deployable.

    height, width: picture size in pixels, multiples of the stride. options: options that only one target has, as an object of that target's class.
    example: picture or film that a page shows when it is opened; other targets have no use for it.
    raw_heads: whether the deployable is to give the logits of each level instead of boxes, with a JSON file beside it (`octrim.targets.raw_heads`).
    """

    precision: str
    height: int
    width: int
    batch: BatchSizes = 1
    options: object | None = None
    raw_heads: bool = False
    example: Path | None = None


class Target:
    """One form in which a network can be deployed: how its files are written, recognised and run.

    A target is a subclass that sets the attributes and overrides `write` and `open`, and the other methods where it differs. Nothing heavy may be
    imported at the top of its module, because the command line reads all targets for `--help`: imports of runtimes stand inside the methods.
    """

    name: ClassVar[str]
    """Name for `--format`, and of the folder that is written where `ending` is empty."""
    what: ClassVar[str]
    """A noun phrase with article for one of its deployables, as in "an ONNX file"."""
    purpose: ClassVar[str]
    """A noun phrase for help texts: what it is and what runs it."""
    ending: ClassVar[str] = ""
    """Ending of its file's name, with the dot; empty for a folder."""
    precisions: ClassVar[tuple[str, ...]] = ("fp32",)
    """Precisions in which it can be written: "fp32", "fp16", "int8"."""
    any_batch: ClassVar[bool] = True
    """Whether it can be written for any number of pictures per batch."""
    one_picture: ClassVar[bool] = False
    """Whether what it writes takes one picture at a time, so that programs, and its sessions, loop over pictures."""
    batch_range: ClassVar[bool] = False
    """Whether it can be written for (fewest, typical, most) pictures per batch."""
    raw_heads: ClassVar[bool] = False
    """Whether it can be written without decoding."""
    examples: ClassVar[bool] = False
    """Whether it can carry a picture or film that it shows first."""
    engine_options: ClassVar[bool] = False
    """Whether the options of engines (`octrim.targets.tensorrt.options`) mean something to it."""
    portable: ClassVar[bool] = False
    """Whether every installation of OcTrim can write and run it; `octrim compress` exports to these."""

    runtime: ClassVar[str]
    """Name for `--runtime` of the runtime that runs its files."""
    program: ClassVar[str]
    """Name of that runtime in sentences, as in "ONNX Runtime"."""
    device: ClassVar[str] = "cpu"
    """What that runtime computes on: "cpu" or "gpu"."""
    live: ClassVar[tuple[str, ...]] = ()
    """Precisions in which its runtime runs a model without a file; empty where a file must be written first."""
    also_opens: ClassVar[tuple[str, ...]] = ()
    """Names of other targets whose files its runtime opens too."""
    install: ClassVar[str]
    """Advice for machines where its runtime is missing."""

    def write(self, model: Model, path: Path, order: Order) -> None:
        """Write the file `path`, or the folder `path`, which does not exist yet.

        Raises InputError for what cannot be written, and OSError for a full disk. Options were checked by `check` and against the attributes.
        """
        raise NotImplementedError

    def open(self, path: Path, precision: str, threads: int | None) -> Session:
        """A session over a file or folder that `find` gave. Raises InputError for a damaged one, and for what its runtime cannot do."""
        raise NotImplementedError

    def session(self, model: Model, precision: str, threads: int | None) -> Session:
        """A session over a model without a file, in one of the precisions `live`."""
        raise NotImplementedError

    def find(self, path: Path) -> Path | None:
        """The path to open where `path` is one of this target's deployables, else None. A file is told by its ending, whether it exists or not."""
        return path if self.ending and path.suffix == self.ending else None

    def check(self, model: Model, order: Order) -> None:
        """Raise InputError for an order that cannot be carried out, before anything takes time."""

    def judge(self, precision: str) -> tuple[str, str]:
        """Runtime and precision of the session over the model that a deployable of this precision is compared with."""
        return "paddle", "fp32"

    def version(self) -> str:
        """Version of the runtime, and what else `octrim doctor` should say of it. Raises ImportError or InputError where it is not installed."""
        raise NotImplementedError

    def obstacle(self) -> str | None:
        """Why this machine cannot run what it writes, as a clause; None where it can. What cannot run is written without being compared."""
        return None
