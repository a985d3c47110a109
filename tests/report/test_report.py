"""The report of a small compression: its numbers are those of the run's files, names are escaped, and nothing is asked from elsewhere."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from octrim.cli import main
from octrim.data.open import open_dataset
from octrim.errors import InputError
from octrim.network.loading import load
from octrim.report.files import read_run
from octrim.report.neighbours import Neighbour
from octrim.report.page import write_report
from octrim.stages import STAGES
from octrim.targets.c.compiler import has_compiler
from tests.chromium import FOUND, chromium
from tests.report.reading import NAMES, column, read


@pytest.mark.slow
def test_numbers_are_those_of_the_summary(whole: tuple[Path, Path]) -> None:
    folder, _ = whole
    summary, page = json.loads((folder / "summary.json").read_text()), read(folder)
    table = page.tables["networks"]
    rows, times = summary["stages"], summary["times"]
    assert column(table, "network") == ["original", "sparse", "cut", "fine-tuned", "control"]
    assert column(table, "mAP50-95") == [f"{row['mAP50-95']:.3f}" for row in rows.values()]
    assert column(table, "mAP50") == [f"{row['mAP50']:.3f}" for row in rows.values()]
    assert column(table, "95 % interval") == ["{:.3f} to {:.3f}".format(*row["interval"]) for row in rows.values()]
    assert column(table, "parameters") == [f"{row['parameters']:,}" for row in rows.values()]
    assert column(table, "channels") == [f"{row['channels']:,}" for row in rows.values()]
    assert column(table, "MACs, M") == [f"{row['macs'] / 1e6:,.1f}" for row in rows.values()]
    assert column(table, "epochs") == [str(row["epochs"]) for row in rows.values()]
    for found, expected in ((column(table, "latency, ms"), times["latency_ms"]), (column(table, "speed-up"), times["speedup"])):
        assert [float(text.removesuffix("×")) for text in found] == pytest.approx(list(expected.values()), rel=5e-3, abs=6e-4)
    if has_compiler():
        for found, expected in ((column(table, "latencyin C, ms"), times["c"]["latency_ms"]), (column(table, "speed-upin C"), times["c"]["speedup"])):
            assert [float(text.removesuffix("×")) for text in found] == pytest.approx(list(expected.values()), rel=5e-3, abs=6e-4)
        assert [row[0] for row in page.tables["latency"][1:]] == ["original", "fine-tuned", "original in C", "fine-tuned in C"]
    assert f"keeps {rows['finetuned']['channels']:,} of {rows['original']['channels']:,} channels" in page.text
    assert "keep 1/4" in page.text and "align 2" in page.text
    for name, errors in summary["export"].items():
        row = next(row for row in page.tables["export"] if row[1] == name)
        digits, _, power = row[4].partition(" × 10")
        value = float(digits) * 10 ** int(power.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))) if power else float(digits)
        assert value == pytest.approx(errors["score_error"], rel=0.06)
        assert row[6] == str(errors["pictures"])


@pytest.mark.slow
def test_every_layer_is_there(whole: tuple[Path, Path]) -> None:
    folder, _ = whole
    page, before, after = read(folder), *(load(folder / name).network.convs for name in ("1-train/last.safetensors", "3-prune/model.safetensors"))
    table = page.tables["channels"]
    assert [row[:3] for row in table[1:-1]] == [[one.name, str(one.channels), str(two.channels)] for one, two in zip(before, after, strict=True)]
    assert table[-1][:3] == ["all", *(f"{sum(row.channels for row in rows):,}" for rows in (before, after))]
    told = [title.splitlines() for title in page.titles]
    for one, two in zip(before, after, strict=True):  # and in the chart
        said = f"{one.channels} → {two.channels} channels" if one.channels != two.channels else f"{one.channels} channels, all kept"
        assert any(lines[:2] == [one.name, said] for lines in told), one.name


@pytest.mark.slow
def test_names_are_escaped(whole: tuple[Path, Path]) -> None:
    folder, data = whole
    page = read(folder)
    html = (folder / "report.html").read_text("utf-8")
    assert page.tags["script"] == 1 and "<script>alert" not in html and "alert(" not in re.sub(r"alert\(&#34;x&#34;\)", "", html)
    names = [row[0] for row in page.tables["recall"][1:]]
    held = {open_dataset(data, "val").names[label] for label in open_dataset(data, "val").labels}
    assert set(names) >= held and set(names) <= set(NAMES)
    assert any(title.startswith(tuple(f"{name} 0." for name in NAMES)) or title.endswith(", missed") for title in page.titles)


@pytest.mark.slow
def test_pictures_show_every_label(whole: tuple[Path, Path]) -> None:
    folder, data = whole
    page, dataset = read(folder), open_dataset(data, "val")
    shown = [0, 1, 3, 4, 5, 6, 8, 9]  # eight of ten, spread evenly
    objects = sum(len(dataset.targets(index)[1]) for index in shown)
    assert page.tags["image"] == 8 and page.tags["use"] == 16
    missed, right = sum(box.startswith("box missed") for box in page.boxes), sum(box.startswith("box right") for box in page.boxes)
    # Labels are drawn once as such; each network finds or misses every one of them.
    assert missed + right == 3 * objects
    assert page.text.count(" found") >= 16 and [title for title in page.titles if title in NAMES].__len__() == objects
    assert all(Path(dataset.paths[index]).name in page.text for index in shown)


@pytest.mark.slow
def test_the_scales_and_curves_are_there(whole: tuple[Path, Path]) -> None:
    folder, _ = whole
    page = read(folder)
    for title in ("Batch-norm scales over epochs", "Dead channels over epochs", "mAP50-95 over epochs", "Mean of 2 classes", "Box loss"):
        assert title in page.text
    run = read_run(folder)
    sparse = run.part("sparse")
    assert sparse is not None and sparse.scales is not None and sparse.scales.counts.shape == (2, 40)
    dead = sparse.scales.dead[-1]
    assert any(
        f"after epoch 1\n{100 * sparse.scales.counts[1, 0] / sparse.scales.counts[1].sum():.1f} % of the scales" in title for title in page.titles
    )
    assert any(f"{100 * dead:.1f} % of the channels dead" in title for title in page.titles)
    for part in ("original", "finetuned", "control"):
        content = json.loads((next(one.folder for one in run.parts if one.key == part) / "curves.json").read_text())
        for row in content["classes"]:
            assert f"{row['AP50']:.3f}" in page.text
    lineage = [step["action"] for step in load(folder / "4-finetune" / "last.safetensors").lineage]
    assert re.sub(r"\s+", " ", page.text).count("finetune") >= lineage.count("finetune") == 1


@pytest.mark.slow
def test_paths_are_only_those_of_the_configuration(whole: tuple[Path, Path]) -> None:
    folder, _ = whole
    html = (folder / "report.html").read_text("utf-8")
    assert str(folder.parent) in html
    html = re.sub(r'<section id="(configuration|lineage)">.*?</section>', "", html, flags=re.DOTALL)
    assert str(folder.parent) not in html and folder.parent.name not in html
    assert len(html) < 3_000_000 and not re.search(r"(https?:)?//[a-z]", re.sub(r"base64,[^\"]*", "", html))


@pytest.mark.slow
def test_a_resumed_run_writes_the_same_report(whole: tuple[Path, Path]) -> None:
    folder, _ = whole
    before = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    assert main(["compress", "--resume", str(folder)]) == 0
    assert (folder / "report.html").read_bytes() == before


@pytest.mark.slow
def test_without_the_data_pictures_are_left_out(whole: tuple[Path, Path], copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = yaml.safe_load((copy / "config.yaml").read_text())
    (copy / "config.yaml").write_text(yaml.safe_dump({**config, "data": "gone/data.yaml"}))
    assert main(["report", str(copy)]) == 0
    assert f"report: {copy / 'report.html'}" in capsys.readouterr().out
    page = read(copy)
    assert "No pictures: gone/data.yaml: no such file or folder" in page.text and "image" not in page.tags
    assert page.tables["networks"] == read(whole[0]).tables["networks"]


@pytest.mark.slow
def test_games_of_pong(copy: Path) -> None:
    """As the summary of a run on Pong's pictures has them."""
    summary = json.loads((copy / "summary.json").read_text())
    played = {"games": 4, "wins": 3, "interval": [0.3006, 0.9544], "points": {"left": 18, "right": 11}, "latency_ms": 13.63, "ball_recall": None}
    summary["times"]["match"] = {"opponent": "computer:medium", "original": played, "finetuned": {**played, "wins": 2, "ball_recall": 0.9312}}
    (copy / "summary.json").write_text(json.dumps(summary))
    write_report(copy)
    page = read(copy)
    assert "Games against computer:medium" in page.text
    assert page.tables["match"][1:] == [
        ["original", "3 of 4", "30.1 % to 95.4 %", "18 : 11", "13.6", "–"],
        ["fine-tuned", "2 of 4", "30.1 % to 95.4 %", "18 : 11", "13.6", "93.1 %"],
    ]


@pytest.mark.slow
def test_the_layers_in_c(copy: Path) -> None:
    """The milliseconds of profile.json, and their shares of the whole."""
    layers = [("model.0", 0.3, 2_000_000), ("model.1", 0.05, 500_000), ("model.2.cv1", 0.15, 0)]
    content = {"layers": [{"name": name, "what": "a <layer>", "milliseconds": took, "macs": macs} for name, took, macs in layers]}
    (copy / "6-bench" / "profile.json").write_text(json.dumps(content))
    write_report(copy)
    page = read(copy)
    assert [row[:4] for row in page.tables["profile"][1:]] == [
        ["model.0", "0.300", "60.0 %", "2.00"],
        ["model.1", "0.050", "10.0 %", "0.50"],
        ["model.2.cv1", "0.150", "30.0 %", "0.00"],
        ["all", "0.500", "", "2.5"],
    ]
    assert "model.1\na <layer>\n0.050 ms, 10.0 % of the network's" in page.titles


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler(), reason="no C compiler")
def test_a_compression_times_the_layers_in_c(whole: tuple[Path, Path]) -> None:
    folder, _ = whole
    layers = json.loads((folder / "6-bench" / "profile.json").read_text())["layers"]
    convs = {row.name for row in load(folder / "4-finetune" / "last.safetensors").network.convs}
    assert convs <= {layer["name"] for layer in layers} and all(layer["milliseconds"] >= 0 for layer in layers)
    assert column(read(folder).tables["profile"], "layer") == [*(layer["name"] for layer in layers), "all"]


@pytest.mark.slow
def test_neighbours_on_the_leaderboard(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = json.loads((copy / "summary.json").read_text())["stages"]
    own, whole = row["finetuned"], row["original"]
    board = [
        Neighbour("cells", "pictures of cells", "yolov5n 1/8", "default", 3, 0.5, 0.625, round(own["macs"] * factor), 2.5, None)
        for factor in (2.1, 1.5, 0.7, 0.4)
    ]
    monkeypatch.setattr("octrim.report.sections.leaderboard", lambda: board)
    write_report(copy)
    table = read(copy).tables["neighbours"]
    assert table[1][0] == "this run" and table[1][2] == f"{own['mAP50-95']:.3f}"
    assert table[1][3] == (f"{100 * own['mAP50-95'] / whole['mAP50-95']:.1f} %" if whole["mAP50-95"] else "–")
    told = ["yolov5n 1/8", "cells", "0.500", "80.0 %", "2.50", "–"]
    assert [row[:6] for row in table[2:]] == [told, told]
    assert [row[6] for row in table[2:]] == [f"{round(own['macs'] * factor) / 1e6:,.1f}" for factor in (0.7, 1.5)]  # by ratio, nearest first
    assert table[2][7] == "default, mean of 3 trainings: pictures of cells"


@pytest.mark.slow
def test_a_run_that_has_not_come_to_its_end(copy: Path) -> None:
    rows = read(copy).tables["networks"]
    for name in ("summary.json", "4-finetune/stage.json"):
        (copy / name).unlink()
    for name in ("5-export", "6-bench", "control"):
        shutil.rmtree(copy / name)
    write_report(copy)
    page = read(copy)
    assert "not come to its end" in page.text and not {"export", "latency"} & set(page.tables)
    assert column(page.tables["networks"], "mAP50-95") == column(rows, "mAP50-95")[:3]
    for name in (stage.folder for stage in STAGES if stage.network):
        shutil.rmtree(copy / name, ignore_errors=True)
    write_report(copy)
    assert set(read(copy).tables) == set()


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["2-sparsify", "4-finetune", "6-bench"])
def test_stages_are_runs_of_their_own(copy: Path, stage: str) -> None:
    write_report(copy / stage)
    page = read(copy / stage)
    assert f"OcTrim · {stage[2:]}" in page.text
    if stage == "6-bench":
        content = json.loads((copy / stage / "bench.json").read_text())
        rows, names = content["networks"], ["1-train/last.safetensors", "4-finetune/last.safetensors"]
        if "c" in content:
            rows, names = [*rows, *content["c"]["networks"][1:]], [*names, *(f"{name} in C" for name in names)]
        assert [row[0] for row in page.tables["latency"][1:]] == names
        found = [float(row[4]) for row in page.tables["latency"][1:]]
        small = sorted(content["runtimes"]["networks"], key=lambda row: row["network_p50_ms"])
        assert [row[0] for row in page.tables["runtimes"][1:]] == [row["name"] for row in small]
        assert {row["runtime"].split()[0] for row in small} >= {"openvino", "onnxruntime"}
        told = [float(row[1]) for row in page.tables["runtimes"][1:]]
        assert told == pytest.approx([row["network_p50_ms"] for row in small], rel=5e-3, abs=6e-4)
        assert found == pytest.approx([row["network_p50_ms"] for row in rows], rel=5e-3, abs=6e-4)
    else:
        metrics = json.loads((copy / stage / "metrics.json").read_text())
        assert f"{metrics['mAP50-95']:.3f}" in page.text and page.tags["image"] == 8
        assert {row[0]: row[1] for row in page.tables["recall"][1:]} == {name: f"{row['objects']:,}" for name, row in metrics["per_class"].items()}


@pytest.mark.slow
def test_val_and_prune_runs(whole: tuple[Path, Path], tmp_path: Path) -> None:
    folder, data = whole
    weights = str(folder / "4-finetune" / "last.safetensors")
    place = ["--project", str(tmp_path), "--name"]
    assert main(["val", "--weights", weights, "--data", str(data), "--bootstrap", "0", *place, "val"]) == 0
    assert main(["prune", "--weights", weights, "--keep", "1/2", "--align", "1", *place, "prune"]) == 0
    for name in ("val", "prune"):
        write_report(tmp_path / name)
    page = read(tmp_path / "val")
    assert page.tags["image"] == 8 and f"{json.loads((tmp_path / 'val' / 'metrics.json').read_text())['recall']:.3f}" in page.text
    convs = {row.name: str(row.channels) for row in load(tmp_path / "prune" / "model.safetensors").network.convs}
    assert {row[0]: row[2] for row in read(tmp_path / "prune").tables["channels"][1:-1]} == convs


def broken(change: Callable[[Any], Any]) -> Callable[[str], str]:
    def apply(text: str) -> str:
        content = json.loads(text)
        return json.dumps(change(content) or content)

    return apply


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("summary.json", lambda text: text[:-40]),
        ("summary.json", lambda _: "[]"),
        ("summary.json", lambda _: "[" * 100_000),
        ("summary.json", broken(lambda content: content["stages"]["finetuned"].update(macs="many"))),
        ("summary.json", broken(lambda content: content["stages"]["finetuned"].update(interval=[0.1]))),
        ("summary.json", lambda text: text.replace('"parameters": ', '"parameters": 1' + "0" * 5000, 1)),
        ("3-prune/plan.json", broken(lambda content: content["convs"].update(other={"before": 1, "after": 1}))),
        ("4-finetune/metrics.json", broken(lambda content: content.update(per_class=[1]))),
        ("4-finetune/metrics.json", lambda text: text.replace('"mAP50": ', '"mAP50": 1e999, "x": ', 1)),
        ("4-finetune/curves.json", broken(lambda content: content["classes"][0]["precision"].pop())),
        ("4-finetune/results.csv", lambda _: "epoch\n"),
        ("5-export/export.json", broken(lambda content: content["onnx"].pop("box_error"))),
        ("6-bench/bench.json", broken(lambda content: content["networks"][0].update(network_p50_ms=True))),
        ("6-bench/profile.json", lambda _: '{"layers": [{"name": "a", "what": "", "milliseconds": "1", "macs": 1}]}'),
        ("config.yaml", lambda _: "a: [1"),
        ("config.yaml", lambda _: "colour: red"),
    ],
)
def test_damage_is_told_in_a_line(copy: Path, capsys: pytest.CaptureFixture[str], name: str, change: Callable[[str], str]) -> None:
    (copy / name).write_text(change((copy / name).read_text()))
    (copy / "report.html").unlink()
    capsys.readouterr()
    assert main(["report", str(copy)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"{copy / name}" in error and not (copy / "report.html").exists()


def test_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    refused = {"none": "no such folder", "file": "file: a file, expected the folder of a run", "": "not the folder of a run (no config.yaml)"}
    for name, told in refused.items():
        folder = tmp_path / name
        assert main(["report", str(folder)]) == 2
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1
    assert main(["report"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(InputError, match="no such folder"):
        write_report(tmp_path / "none")


@pytest.mark.slow
@pytest.mark.skipif(FOUND is None, reason="no Chromium on this machine")
def test_in_a_browser(whole: tuple[Path, Path], tmp_path: Path) -> None:
    folder, _ = whole
    path = folder / "report.html"
    every = "[...document.querySelectorAll('main *')]"
    outside = f"{every}.filter(one => !one.closest('.scroll, .views') && one.getBoundingClientRect().right > innerWidth + 1)"
    with chromium() as page:
        for width, dark in ((360, False), (360, True), (1280, False)):
            page.open(path, width, dark=dark, touch=width < 500)
            page.value("document.querySelectorAll('details').forEach(one => one.open = true)")
            assert page.value("document.documentElement.scrollWidth <= innerWidth"), f"{width} pixels are not enough"
            assert page.value(f"{outside}.map(one => one.outerHTML.slice(0, 200))") == []
            assert page.requests() == [path.as_uri()] and page.complaints() == []
            assert page.value("document.title") == "run · OcTrim report"
            ink, paper = (page.value(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
            light = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ink, paper)]
            assert (light[0] > 600 and light[1] < 120) if dark else (light[0] < 120 and light[1] > 600)
        # A tap on a layer tells its numbers, and it stays inside the window.
        page.open(path, 360, touch=True)
        x, y = page.value(
            "(() => { const one = document.querySelector('#channels .band:last-of-type'); one.scrollIntoView({block: 'center'}); "
            "const place = one.getBoundingClientRect(); return [place.x + place.width / 2, place.y + place.height / 2] })()"
        )
        page.tap(x, y)
        tip = page.value(
            "(() => { const one = document.querySelector('.tip'), at = one.getBoundingClientRect(); return [one.textContent, at.left, at.right] })()"
        )
        assert tip[0].startswith("model.8.m.1\n") and tip[1] >= 0 and tip[2] <= 360
        page.open(path, 800, media="print")
        assert page.value("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
