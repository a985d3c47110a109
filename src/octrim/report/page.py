"""Page of a report: the run is read, its charts are drawn, and the template is filled in."""

from __future__ import annotations

from pathlib import Path

from octrim.atomic import write_text
from octrim.report.files import read_run
from octrim.report.sections import page


def write_report(folder: str | Path) -> Path:
    """Write `report.html` into the folder of a run, and return its path.

    Raises InputError where the folder is no run, and for a file in it that is damaged. Pictures need the run's data set; without it the report
    says so.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(folder)
    content = page(read_run(folder))
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    path = folder / "report.html"
    write_text(path, environment.get_template("report.html").render(content))
    return path
