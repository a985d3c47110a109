"""What the documents say can be done: commands are understood, Python runs, links lead somewhere, and translations hold what the original holds."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest

import octrim
from octrim.cli import parse

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
TRANSLATED = ["README.md", "docs/quickstart.md", "docs/fit-in-2-ms.md", "docs/raspberry-pi.md", "docs/paddledetection.md"]


def text(document: str) -> str:
    return (ROOT / document).read_text("utf-8")


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text(document), re.DOTALL | re.MULTILINE)


def commands(document: str) -> list[list[str]]:
    """The arguments of every line of `octrim` in the blocks for a shell, and in indented ones."""
    indented = re.findall(r"^ {4}(octrim .*)$", text(document).replace("\\\n", " "), re.MULTILINE)
    lines = [*"".join(blocks(document, "sh")).replace("\\\n", " ").splitlines(), *indented]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("octrim ")]


@pytest.mark.parametrize("document", [document for document in DOCUMENTS if "::test_" in text(document)])
def test_tests_that_documents_name_exist(document: str) -> None:
    for path, name in set(re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", text(document))):
        assert re.search(rf"^def {name}\(", text(path), re.MULTILINE), f"{path}::{name}"


@pytest.mark.parametrize("document", [document for document in DOCUMENTS if blocks(document, "python")])
def test_python_names_exist(document: str) -> None:
    pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")
    for code in blocks(document, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "octrim":
                assert hasattr(octrim, node.attr), f"octrim.{node.attr}"
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("octrim"):
                module = importlib.import_module(str(node.module))
                assert [name.name for name in node.names if not hasattr(module, name.name)] == []


@pytest.mark.parametrize("document", [document for document in DOCUMENTS if commands(document)])
def test_commands_are_understood(document: str) -> None:
    for arguments in commands(document):
        parse(arguments)


def test_the_readme_has_commands() -> None:
    assert len(commands("README.md")) >= 5


def anchors(document: str) -> set[str]:
    """What headings are called in links, as GitHub makes it: lower case, spaces to hyphens, punctuation away."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text(document), flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links(document: str) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text(document)):
        path, _, anchor = link.partition("#")
        target = (ROOT / document).parent / path if path else ROOT / document
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(str(target.relative_to(ROOT) if path else document)), link


@pytest.mark.parametrize("document", [document for document in DOCUMENTS if document != "CHANGELOG.md"])
def test_numbers_below_one_begin_with_a_zero(document: str) -> None:
    """0.5, as OcTrim prints it; code is left alone, because a language may have its own style."""
    prose = re.sub(r"^```.*?^```|`[^`\n]*`|^ {4}[^\n]*$", "", text(document), flags=re.DOTALL | re.MULTILINE)
    assert re.findall(r"(?<![\w./\\])\.\d\w*.{0,20}", prose) == []


@pytest.mark.parametrize("document", TRANSLATED)
def test_translations_hold_the_same_commands_code_and_numbers(document: str) -> None:
    chinese = document.replace(".md", ".zh.md")
    assert commands(chinese) == commands(document)
    assert [ast.dump(ast.parse(code)) for code in blocks(chinese, "python")] == [ast.dump(ast.parse(code)) for code in blocks(document, "python")]

    def figures(of: str) -> list[list[str]]:
        rows = [line for line in text(of).splitlines() if line.startswith("|") and re.search(r"\d", line)]
        return [re.findall(r"\d+(?:[.,]\d+)*", line) for line in rows]

    assert figures(chinese) == figures(document)
