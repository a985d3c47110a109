"""Pictures of a run: boxes lie where the numbers say, in the colours of their classes, and odd input does not end a training."""

from __future__ import annotations

import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest

from octrim.data.dataset import Dataset
from octrim.data.sheet import CAPTION, HEIGHT, MARGIN, WIDTH
from octrim.errors import InputError
from octrim.evaluate.detections import COLOURS
from octrim.training.pictures import GAP, SIDE, save_batch, save_curves, save_labels, save_predictions

HEADER = (
    "epoch,train/box_loss,train/obj_loss,train/cls_loss,metrics/precision,metrics/recall,metrics/mAP_0.5,metrics/mAP_0.5:0.95,"
    "val/box_loss,val/obj_loss,val/cls_loss,x/lr0,x/lr1,x/lr2"
)
BLUE, ORANGE = (178, 114, 0), (0, 94, 213)  # BGR, of training and validation
PUBLISHED = (((10, 13), (16, 30), (33, 23)), ((30, 61), (62, 45), (59, 119)), ((116, 90), (156, 198), (373, 326)))


def read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None
    assert [file.name for file in path.parent.iterdir() if file.name.startswith(".")] == []  # nothing half-written beside it
    return image


def is_drawn(image: np.ndarray, x: float, y: float, colour: tuple[int, int, int]) -> bool:
    """Whether the colour is met within a pixel of the place; JPEG blurs it."""
    row, column = round(y), round(x)
    near = image[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].reshape(-1, 3).astype(int)
    return bool(np.abs(near - colour).sum(1).min() < 70)


def shares(image: np.ndarray, colour: tuple[int, int, int]) -> float:
    """Of pixels in exactly this colour, in thousandths."""
    return 1000 * float((image == colour).all(2).mean())


def labelled(sizes_wh: np.ndarray, names: tuple[str, ...], labels: np.ndarray) -> Dataset:
    """One picture of 640 x 640 with all boxes, centred."""
    boxes = np.concatenate([320 - sizes_wh / 2, 320 + sizes_wh / 2], 1).astype(np.float32)
    shape, starts = np.asarray([[640, 640]], np.int32), np.asarray([0, len(boxes)])
    return Dataset(names, ("x",), shape, boxes, labels.astype(np.int32), np.zeros(len(boxes), bool), starts, ("x",), tuple(range(len(names))))


def test_batch_boxes_lie_where_the_targets_say(tmp_path: Path) -> None:
    images = np.full((2, 120, 240, 3), 60, np.uint8)
    images[1] = (200, 30, 30)  # red, as RGB
    targets = np.asarray([[0, 0, 0.5, 0.5, 0.5, 0.5], [1, 2, 0.25, 0.5, 0.25, 0.75]], np.float32)
    save_batch(images, targets, ["a", "b", "c"], tmp_path / "batch.jpg")
    sheet = read(tmp_path / "batch.jpg")
    scale = SIDE / 240
    height, width = 120 * scale + 2 * MARGIN, SIDE + 2 * MARGIN
    assert sheet.shape == (height, 2 * width, 3)
    # The first box goes from (60, 30) to (180, 90), the second from (30, 15) to (90, 105).
    for left, box, colour in ((0, (60, 30, 180, 90), COLOURS[0]), (width, (30, 15, 90, 105), COLOURS[2])):
        x1, y1, x2, y2 = (MARGIN + scale * side for side in box)
        middle_x, middle_y = (x1 + x2) / 2, (y1 + y2) / 2
        for x, y in ((x1, middle_y), (x2, middle_y), (middle_x, y2), (x2 - 20, y1)):
            assert is_drawn(sheet, left + x, y, colour)
        assert not is_drawn(sheet, left + middle_x, middle_y, colour)
        assert not is_drawn(sheet, width - left + x1, middle_y, colour)  # nor in the other picture
    assert np.abs(sheet[-20, -20].astype(int) - (30, 30, 200)).max() < 20  # BGR on disk
    assert np.abs(sheet[20, 20].astype(int) - 60).max() < 10


def test_batch_of_many_and_of_none(tmp_path: Path) -> None:
    nothing = np.zeros((0, 6), np.float32)
    save_batch(np.zeros((20, 64, 64, 3), np.uint8), nothing, ["a"], tmp_path / "many.jpg")
    assert read(tmp_path / "many.jpg").shape == (4 * (SIDE + 2 * MARGIN), 4 * (SIDE + 2 * MARGIN), 3)
    save_batch(np.zeros((5, 64, 64, 3), np.uint8), nothing, ["a"], tmp_path / "five.jpg")
    five = read(tmp_path / "five.jpg")
    assert five.shape == (2 * (SIDE + 2 * MARGIN), 4 * (SIDE + 2 * MARGIN), 3)
    assert five[-50, -50].min() > 250 and five[-50, 50].max() < 5  # white where there is no picture
    save_batch(np.zeros((0, 64, 64, 3), np.uint8), nothing, ["a"], tmp_path / "none.jpg")
    assert not (tmp_path / "none.jpg").exists()


def test_batch_leaves_its_pictures_alone(tmp_path: Path) -> None:
    images = np.full((1, SIDE, SIDE, 3), 60, np.uint8)
    save_batch(images, np.asarray([[0, 0, 0.5, 0.5, 0.5, 0.5]], np.float32), ["a"], tmp_path / "batch.jpg")
    assert (images == 60).all()


def test_predictions_beside_labels(tmp_path: Path) -> None:
    scale = 2
    image = np.full(((HEIGHT - 2 * MARGIN) // scale, (WIDTH - 2 * MARGIN) // scale, 3), 60, np.uint8)  # 178 x 238, doubled on the sheet
    before = image.copy()
    truth = (np.asarray([[20, 40, 100, 120]], np.float32), np.asarray([1]))
    found = np.asarray([[120, 40, 200, 120, 0.9, 2], [30, 30, 60, 150, 0.2, 0]], np.float32)
    save_predictions([image, image], [found, np.zeros((0, 6), np.float32)], [truth, truth], ["a", "b", "c"], tmp_path / "found.jpg")
    sheet = read(tmp_path / "found.jpg")
    assert sheet.shape == (HEIGHT + CAPTION, 2 * (2 * WIDTH + GAP), 3)
    assert np.array_equal(image, before)
    second = 2 * WIDTH + GAP
    places = [(MARGIN + scale * x, MARGIN + scale * 80) for x in (20, 120, 30)]  # the left sides of the label and of both detections
    label, confident, doubtful = places
    assert is_drawn(sheet, *label, COLOURS[1]) and is_drawn(sheet, label[0] + second, label[1], COLOURS[1])
    assert not is_drawn(sheet, label[0] + WIDTH, label[1], COLOURS[1])  # no label among the detections
    assert is_drawn(sheet, confident[0] + WIDTH, confident[1], COLOURS[2])
    assert not is_drawn(sheet, *confident, COLOURS[2])  # no detection among the labels
    assert not is_drawn(sheet, confident[0] + WIDTH + second, confident[1], COLOURS[2])  # none in the second picture
    assert not is_drawn(sheet, doubtful[0] + WIDTH, doubtful[1], COLOURS[0])
    save_predictions([image], [found], [truth], ["a", "b", "c"], tmp_path / "all.jpg", confidence=0.1)
    sheet = read(tmp_path / "all.jpg")
    assert is_drawn(sheet, doubtful[0] + WIDTH, doubtful[1], COLOURS[0])


def test_predictions_leave_pictures_of_the_tiles_size_alone(tmp_path: Path) -> None:
    image = np.full((HEIGHT - 2 * MARGIN, WIDTH - 2 * MARGIN, 3), 60, np.uint8)  # which letterboxing hands back as it is
    truth = (np.asarray([[20, 40, 100, 120]], np.float32), np.asarray([0]))
    save_predictions([image], [np.zeros((0, 6), np.float32)], [truth], ["a"], tmp_path / "found.jpg")
    assert (image == 60).all()


def test_predictions_on_files(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    cv2.imwrite(str(good), np.full((60, 80, 3), 60, np.uint8))
    bad.write_bytes(b"broken")
    none, truth = np.zeros((0, 6), np.float32), (np.zeros((0, 4), np.float32), np.zeros(0, np.int32))
    save_predictions([bad, str(good)], [none, none], [truth, truth], ["a"], tmp_path / "found.jpg")
    sheet = read(tmp_path / "found.jpg")
    assert sheet[: HEIGHT - 10, : 2 * WIDTH].min() > 240
    assert sheet[HEIGHT // 2, 2 * WIDTH + GAP + WIDTH // 2].max() < 70
    save_predictions([good] * 20, [none] * 20, [truth] * 20, ["a"], tmp_path / "many.jpg")
    assert read(tmp_path / "many.jpg").shape == (8 * (HEIGHT + CAPTION), 2 * (2 * WIDTH + GAP), 3)
    save_predictions([], [], [], ["a"], tmp_path / "none.jpg")
    assert not (tmp_path / "none.jpg").exists()


NAMES = ["Größe", "赤血球", "\udcff", "$x_1$ and \\frac{", "_line\nend"]


def test_names_of_any_kind(tmp_path: Path) -> None:
    """Lone surrogates once ended the process in OpenCV; `$` begins a formula in Matplotlib."""
    images = np.full((1, 100, 100, 3), 60, np.uint8)
    rows = [[0, label, 0.5, 0.15 + 0.15 * label, 0.9, 0.1] for label in range(len(NAMES))]
    save_batch(images, np.asarray(rows, np.float32), NAMES, tmp_path / "batch.jpg")
    found = np.asarray([[5, 5 + 15 * label, 95, 15 + 15 * label, 0.9, label] for label in range(len(NAMES))], np.float32)
    save_predictions([images[0]], [found], [(found[:, :4], found[:, 5].astype(int))], NAMES, tmp_path / "found.jpg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_labels(labelled(np.full((5, 2), 50.0), tuple(NAMES), np.arange(5)), tmp_path / "labels.png", 640)
    for name, colours in (("batch.jpg", COLOURS), ("found.jpg", COLOURS)):
        sheet = read(tmp_path / name)
        assert all((np.abs(sheet.astype(int) - colour).sum(2) < 40).sum() > 100 for colour in colours[: len(NAMES)])


@pytest.mark.slow
def test_labels_with_anchors(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = labelled(np.exp(rng.normal(4, 0.5, (300, 2))), ("a", "b"), rng.integers(0, 2, 300))
    save_labels(data, tmp_path / "without.png", 640)
    save_labels(data, tmp_path / "with.png", 640, PUBLISHED)
    without, marked = read(tmp_path / "without.png"), read(tmp_path / "with.png")
    # The second panel alone differs, and holds the marks of the first and third level.
    third = marked.shape[1] // 3
    changed = np.flatnonzero((without != marked).any((0, 2)))
    assert third - 150 < changed.min() and changed.max() < 2 * third + 150
    for colour in ((0, 94, 213), (167, 121, 204)):
        assert shares(marked, colour) > 0.05 > shares(without, colour)


@pytest.mark.slow
def test_labels_of_all_kinds_of_sets(tmp_path: Path) -> None:
    empty = labelled(np.zeros((0, 2)), ("a",), np.zeros(0))
    single = labelled(np.asarray([[640.0, 640.0]]), ("a",), np.zeros(1))
    many = labelled(np.full((500, 2), 30.0), tuple(f"class {number}" for number in range(300)), np.arange(500) % 300)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, data in (("empty", empty), ("single", single), ("many", many)):
            save_labels(data, tmp_path / f"{name}.png", 320, PUBLISHED)
            save_labels(data, tmp_path / f"{name}-alone.png", 320)
            assert read(tmp_path / f"{name}.png").std() > 10


def rows(count: int) -> list[str]:
    lines = []
    for epoch in range(count):
        loss, rate, score = 1 / (epoch + 1), 0.01 / (epoch + 1), epoch / count
        lines.append(",".join(f"{value:.5g}" for value in (epoch, *[loss] * 3, *[score] * 4, *[loss * 1.2] * 3, *[rate] * 3)))
    return lines


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 40])
def test_curves(tmp_path: Path, count: int) -> None:
    table = tmp_path / "results.csv"
    table.write_text("\n".join([HEADER, *rows(count)]) + "\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_curves(table, tmp_path / "results.png")
    image = read(tmp_path / "results.png")
    height, width = image.shape[0], image.shape[1]
    for row, column in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1)):  # both lines are to be seen in each panel, a mark where there is one epoch
        panel = image[row * height // 2 : (row + 1) * height // 2, column * width // 3 : (column + 1) * width // 3]
        assert shares(panel, ORANGE) > 0.1
        assert shares(panel, BLUE) > 0.1


def test_curves_go_where_the_numbers_are(tmp_path: Path) -> None:
    """A loss that rises is drawn from the lower left to the upper right."""
    table = tmp_path / "results.csv"
    table.write_text("epoch,train/box_loss\n" + "".join(f"{epoch},{epoch}\n" for epoch in range(20)))
    save_curves(table, tmp_path / "results.png")
    line = np.argwhere((read(tmp_path / "results.png") == BLUE).all(2))
    left, right = line[line[:, 1].argmin()], line[line[:, 1].argmax()]
    assert left[0] - right[0] > 150 and right[1] - left[1] > 300
    assert abs(np.corrcoef(line[:, 0], line[:, 1])[0, 1]) > 0.999


@pytest.mark.slow
def test_curves_of_odd_tables(tmp_path: Path) -> None:
    """YOLOv5 pads its columns; values may be missing, nan or infinite; other columns get their own panels."""
    table = tmp_path / "results.csv"
    spaced = [
        "              " + line.replace(",", ",   ")
        for line in [HEADER + ",sparsity/$dead", *(f"{line},{place / 9}" for place, line in enumerate(rows(9)))]
    ]
    spaced[3] = "2,nan,inf,"
    spaced.insert(5, "  ")
    table.write_text("\n".join(spaced) + "\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_curves(table, tmp_path / "results.png")
    assert read(tmp_path / "results.png").shape[0] > 1100  # three rows of panels
    table.write_text(HEADER + "\n" + "0" + ",nan" * 13 + "\n")
    save_curves(table, tmp_path / "results.png")


def test_tables_that_are_none(tmp_path: Path) -> None:
    table = tmp_path / "results.csv"
    with pytest.raises(InputError, match=r"results\.csv: No such file"):
        save_curves(table, tmp_path / "results.png")
    for text in ("", HEADER + "\n", "a,b\n1,2\n"):
        table.write_text(text)
        with pytest.raises(InputError, match="expected a column epoch and at least one row"):
            save_curves(table, tmp_path / "results.png")
    assert not (tmp_path / "results.png").exists()
