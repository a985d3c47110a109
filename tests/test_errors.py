"""Error lines: what is taken from the errors of libraries."""

from __future__ import annotations

from octrim.errors import said


def test_of_a_librarys_error_the_last_line_is_told() -> None:
    text = "Exception from src/inference/src/cpp/core.cpp:97:\nCheck 'false' failed at frontend.cpp:55:\n  bin file   cannot be found!\n\n"
    assert said(RuntimeError(text)) == "bin file cannot be found!"
    assert said(RuntimeError("one line")) == "one line"
    assert said(RuntimeError(" \n")) == "RuntimeError"
    assert said(RuntimeError("x" * 150 + "y" * 150)) == "..." + "x" * 47 + "y" * 150
