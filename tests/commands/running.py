"""Commands as users type them."""

from __future__ import annotations

import pytest

from octrim.cli import main


def failed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a refused command leaves on standard error."""
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert "Traceback" not in error
    return error
