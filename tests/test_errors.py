"""Error lines: what is taken from the errors of libraries."""

from __future__ import annotations

from octrim.errors import counted, said


def test_of_a_librarys_error_the_last_line_is_told() -> None:
    text = "Exception from src/inference/src/cpp/core.cpp:97:\nCheck 'false' failed at frontend.cpp:55:\n  bin file   cannot be found!\n\n"
    assert said(RuntimeError(text)) == "bin file cannot be found!"
    assert said(RuntimeError("one line")) == "one line"
    assert said(RuntimeError(" \n")) == "RuntimeError"
    assert said(RuntimeError("x" * 150 + "y" * 150)) == "..." + "x" * 47 + "y" * 150


def test_one_is_singular() -> None:
    assert [counted(number, "round") for number in (0, 1, 2)] == ["0 rounds", "1 round", "2 rounds"]
    assert [counted(number, "class", "classes") for number in (1, 2)] == ["1 class", "2 classes"]
