"""Rehearsal of a compression's last stages: the network as it will be cut is written and run in every form that the run exports to.

The weights of the rehearsal mean nothing; what it shows, before hours of training, is a missing runtime, a broken compiler, and a network that a
target cannot express.
"""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

import numpy as np

from octrim.deploy.export import FORMATS
from octrim.errors import InputError
from octrim.network.model import Model
from octrim.targets.opening import open_session
from octrim.targets.table import TARGETS
from octrim.targets.target import Order

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # OpenVINO tells EIO


def rehearse(small: Model) -> None:
    """Write `small` in every format that a compression exports to, and run what was written on a grey picture.

    Raises InputError, which names the format, for whatever fails: the stages of a compression would fail the same way at its end.
    """
    side = small.image_size
    picture = np.full((1, side, side, 3), 114, np.uint8)
    with tempfile.TemporaryDirectory(prefix="octrim-") as folder:
        for name in export_formats(small)[0]:
            target = TARGETS[name]
            path = Path(folder) / f"{name}{target.ending}"
            try:
                target.write(small, path, Order("fp32", side, side))
                open_session(path)(picture)
            except (InputError, ImportError, RuntimeError, OSError) as error:
                if isinstance(error, OSError) and error.errno in _NO_SPACE:
                    return  # the folder for temporary files may lie on another disk than the run
                raise InputError(f"the small network could not be exported in the end (--format {name}): {error}") from None


def export_formats(model: Model) -> tuple[tuple[str, ...], str | None]:
    """Formats that a compression exports to: those that every machine can write, and C; and why C is left out, None where it is not.

    The C runtime is compiled for that, once per machine.
    """
    try:
        open_session(model, "c")
    except InputError as error:
        return FORMATS, str(error)
    return (*FORMATS, "c"), None
