"""The folder `web/` of an export: index.html, which holds all that it needs, and detector.wasm and detector.js for pages of one's own."""

from __future__ import annotations

import base64
import html
import json
import mimetypes
import tempfile
from hashlib import sha256
from pathlib import Path

from octrim.errors import InputError
from octrim.network.cost import network_cost
from octrim.network.model import Model
from octrim.targets.c.folder import write_folder as write_c
from octrim.targets.c.source import filled
from octrim.targets.metadata import export_metadata
from octrim.targets.web.compiler import compiled

HEADER = "web.json"

PAGE = Path(__file__).parent / "page"

MOST_WEIGHTS = 100_000_000
"""Most bytes of weights that a page may carry."""

MOST_EXAMPLE = 20_000_000
"""Most bytes of a picture or film that a page may carry."""


def write_folder(model: Model, folder: Path, height: int, width: int, example: Path | None = None) -> None:
    """Write the files into `folder`, which must be there. The same model and compiler give the same bytes.

    example: picture or film that the page carries and shows when it is opened.
    """
    with tempfile.TemporaryDirectory(prefix="octrim-web-") as place:
        c = Path(place)
        write_c(model, c, height, width)
        (c / "browser.c").write_text(_text("browser.c"), "utf-8")
        code = compiled(c, ("detector.c", "browser.c"))
        weights = (c / "weights.bin").read_bytes() if (c / "weights.bin").is_file() else b""
    files = {"detector.wasm": code, "detector.js": _text("detector.js").encode()}
    if weights:
        files["weights.bin"] = weights
    header = {"sha256": {name: sha256(content).hexdigest() for name, content in files.items()}, "height": height, "width": width}
    files[HEADER] = (json.dumps(header | export_metadata(model), indent=1) + "\n").encode()
    files["index.html"] = page(model, height, width, code, weights, example).encode()
    files["README.md"] = filled(_text("README.md"), {"weights": ', await bytes("weights.bin")' if weights else ""}).encode()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def page(model: Model, height: int, width: int, code: bytes, weights: bytes, example: Path | None) -> str:
    """The text of index.html. It loads nothing: code, weights and example stand in it, and its policy forbids all else."""
    cost = network_cost(model.network, height, width)
    names = ", ".join(model.names[:8]) + (f" and {len(model.names) - 8} more" if len(model.names) > 8 else "")
    script = _text("detector.js").replace("export class", "class") + _text("page.js")
    style = _text("page.css")
    data = {
        "code": base64.b64encode(code).decode(),
        "weights": base64.b64encode(weights).decode(),
        "example": base64.b64encode(example.read_bytes()).decode() if example is not None else "",
        "type": mimetypes.guess_type(example.name)[0] or "" if example is not None else "",
    }
    values = {
        "names": html.escape(names),
        "about": f"{width} × {height} pixels, {cost.parameters:,} parameters, {cost.macs / 1e6:,.0f} million multiply-adds",
        "style": style,
        "script": script,
        "style_digest": _digest(style),
        "script_digest": _digest(script),
        "data": json.dumps(data),
    }
    return filled(_text("page.html"), values)


def check_size(model: Model, example: Path | None = None) -> None:
    """Raise InputError for a network whose weights no browser takes as part of a page, and for an example that makes the page large."""
    if example is not None and example.stat().st_size > MOST_EXAMPLE:
        raise InputError(
            f"{example}: a page carries at most {MOST_EXAMPLE // 1_000_000} MB of example, and this has {example.stat().st_size / 1e6:.0f} MB"
        )
    found = 4 * sum(tensor.size for tensor in model.tensors.values())
    if found > MOST_WEIGHTS:
        raise InputError(f"a page carries at most {MOST_WEIGHTS // 1_000_000} MB of weights, and this network has {found / 1e6:.0f} MB: cut it first")


def _digest(text: str) -> str:
    """The digest by which the page's policy knows a script or a style sheet."""
    return "sha256-" + base64.b64encode(sha256(text.encode()).digest()).decode()


def _text(name: str) -> str:
    return (PAGE / name).read_text("utf-8")
