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
from octrim.quantization.calibration import quantize
from octrim.targets.opening import open_session
from octrim.targets.table import TARGETS
from octrim.targets.target import Order

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # OpenVINO tells EIO


INT8_FORMATS = ("openvino", "c")
"""Formats that a compression exports the int8 network to: those in whose runtimes int8 was faster than float on processors."""


def rehearse(small: Model, int8: bool = False) -> None:
    """Write `small` in every format that a compression exports to, and run what was written on a grey picture. int8: whether in int8, too.

    Raises InputError, which names the format, for whatever fails: the stages of a compression would fail the same way at its end.
    """
    side = small.image_size
    picture = np.full((1, side, side, 3), 114, np.uint8)
    formats = export_formats(small)[0]
    wanted = [(name, "fp32", small) for name in formats]
    if int8:
        noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
        try:
            quantized = quantize(small, [noise])
        except InputError as error:
            raise InputError(f"the small network could not be made int8 in the end: {error}") from None
        wanted += [(name, "int8", quantized) for name in formats if name in INT8_FORMATS]
    with tempfile.TemporaryDirectory(prefix="octrim-") as folder:
        for name, precision, model in wanted:
            target = TARGETS[name]
            path = Path(folder) / f"{name}-{precision}{target.ending}"
            try:
                target.write(model, path, Order(precision, side, side))
                open_session(path)(picture)
            except (InputError, ImportError, RuntimeError, OSError) as error:
                if isinstance(error, OSError) and error.errno in _NO_SPACE:
                    return  # the folder for temporary files may lie on another disk than the run
                told = f"--format {name} --precision {precision}" if precision == "int8" else f"--format {name}"
                raise InputError(f"the small network could not be exported in the end ({told}): {error}") from None


def export_formats(model: Model) -> tuple[tuple[str, ...], str | None]:
    """Formats that a compression exports to: those that every machine can write, and C; and why C is left out, None where it is not.

    The C runtime is compiled for that, once per machine.
    """
    try:
        open_session(model, "c")
    except InputError as error:
        return FORMATS, str(error)
    return (*FORMATS, "c"), None
