"""Reading of YAML and JSON text from users: plain values only, of limited size, with every kind of damage reported in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError

from octrim.errors import InputError, shown

# Largest size of a text: a hundred times the longest published layout; PyYAML needs half a minute for some texts of a megabyte.
_MOST_BYTES = 100_000


class _Loader(yaml.SafeLoader):
    """YAML loader that refuses aliases, because with them a few lines can stand for more values than fit into memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise ComposerError(None, None, "aliases (*name) are not supported here", event.start_mark)
        return super().compose_node(parent, index)


def read_text(path: str | Path) -> str:
    """The text of a short UTF-8 file. Raises InputError where it is missing, too long or no text."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    if len(data) > _MOST_BYTES:
        raise InputError(f"{path}: more than {_MOST_BYTES} bytes; no layout or map needs that")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a UTF-8 text file (byte {error.start})") from None


def parse(text: str, name: str) -> tuple[Any, yaml.Node | None]:
    """The values in a text, and the YAML nodes, which know their lines. Raises InputError with `name` and, where it is known, the line."""
    loader: _Loader | None = None
    try:
        loader = _Loader(text)  # the constructor refuses characters that YAML must not have
        root = loader.get_single_node()
        return (None if root is None else loader.construct_document(root)), root
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{name}:{mark.line + 1}" if mark else name
        raise InputError(f"{place}: not YAML: {getattr(error, 'problem', None) or shown(str(error))}") from None
    # PyYAML raises these errors for values that it recognises and cannot build, and for deep nesting.
    except (RecursionError, ValueError, IndexError, KeyError, AttributeError, OverflowError) as error:
        raise InputError(f"{name}: not YAML that can be read: {type(error).__name__} {shown(str(error))}") from None
    finally:
        if loader is not None:
            loader.dispose()
