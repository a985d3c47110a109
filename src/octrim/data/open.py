"""Which format a data set has, found out from what is there."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from octrim.data.coco import read_coco
from octrim.data.dataset import Dataset
from octrim.data.index import Index
from octrim.data.labelfiles import read_bytes
from octrim.data.voc import is_voc, read_voc
from octrim.data.yolo import SPLITS, list_folder, list_yaml, load_yaml, read_yolo
from octrim.errors import InputError


def open_dataset(data: str | Path, split: str = "val", names: Sequence[str] = (), workers: int | None = None) -> Dataset:
    """Read a split of a data set: pictures' sizes, boxes, and what is wrong with them (`report`).

    data: a data.yaml (YOLO), a COCO annotation file, or a folder: with a data.yaml, with images/ and labels/ (YOLO), with annotation files
    per split (COCO), or with Annotations/, ImageSets/ and JPEGImages/ (Pascal VOC). An annotation file is one split, whatever `split` says.
    names: of the classes, where the format has none. workers: processes that read; None takes as many as pay. The result does not depend
    on it, nor on what earlier runs have left in the cache.
    Raises InputError where nothing of this is found, the split is missing, or no picture can be read.
    """
    # resolve() would follow links out of the data set; Path's own expanduser() and exists() raise for users and names that cannot be.
    path = Path(os.path.abspath(os.path.expanduser(data)))  # noqa: PTH100, PTH111
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}, expected 1 or more")
    if not os.path.exists(path):  # noqa: PTH110
        raise InputError(f"{data}: no such file or folder")
    index = Index(path, split, workers)
    try:
        dataset = _read_file(path, split, names, index) if path.is_file() else _read_folder(path, split, names, index)
    except OSError as error:  # a folder that must not be listed, a split of more letters than a file name can have
        raise InputError(f"{error.filename or data}: {error.strerror or error}") from None
    index.save()
    return dataset


def open_labelled(data: str | None, split: str, names: Sequence[str], use: str = "measure") -> Dataset:
    """`open_dataset` for a network: a format without class names has the network's, `names`, unless it has more classes than those.

    Raises InputError also without `data`, and where there is no labelled object, with nothing to `use`: "measure", "learn".
    """
    if data is None:
        raise InputError("give --data: a data.yaml, a folder (YOLO, COCO, VOC), or a COCO annotation file")
    dataset = open_dataset(data, split)
    if dataset.names == tuple(f"class{index}" for index in range(len(dataset.names))) and len(names) >= len(dataset.names):
        dataset = open_dataset(data, split, names)
    if dataset.crowd.all():
        problems = "".join(f"; {line}" for line in dataset.report.lines()[:3])
        raise InputError(f"{data}: {len(dataset)} pictures in {split} and no labelled objects: nothing to {use}{problems}")
    return dataset


def _read_file(path: Path, split: str, names: Sequence[str], index: Index) -> Dataset:
    # YAML may begin like JSON, and damaged JSON like nothing; the suffix decides then.
    suffix = path.suffix.lower()
    if suffix == ".json" or (suffix not in (".yaml", ".yml") and _head(path, 64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[")):
        return read_coco(path, split, index)
    return read_yolo(path, list_yaml(path, split), names, index)


def _read_folder(root: Path, split: str, names: Sequence[str], index: Index) -> Dataset:
    data_yamls = [path for pattern in ("*.yaml", "*.yml") for path in sorted(root.glob(pattern)) if _is_data_yaml(path)]
    if len(data_yamls) == 1:
        return read_yolo(data_yamls[0], list_yaml(data_yamls[0], split), names, index)
    if is_voc(root):
        return read_voc(root, split, names, index)
    folders = _picture_folders(root)
    labels = [path for path in (root / "labels", *(child / "labels" for child in _children(root))) if path.is_dir()]
    annotations = _annotation_files(root)
    if folders and labels and (not annotations or any(_holds_text(path) for path in labels)):
        return read_yolo(root, list_folder([_split_folder(root, folders, split)]), names, index)
    if annotations:
        return read_coco(_split_annotations(root, annotations, split), split, index)
    if len(data_yamls) > 1:
        raise InputError(f"{root}: holds several data sets ({', '.join(path.name for path in data_yamls)}); name one of the files")
    raise InputError(
        f"{root}: no data set found; looked for a data.yaml, images/ and labels/ (YOLO), annotations/*.json, labels/*.json or *.json (COCO), "
        "Annotations/ and ImageSets/Main/ (Pascal VOC)"
    )


def _is_data_yaml(path: Path) -> bool:
    try:
        return any(key in SPLITS for key in load_yaml(path))
    except InputError:
        return False


def _picture_folders(root: Path) -> dict[str, Path]:
    """Folders of a YOLO data set without a yaml, by the name that may tell the split: images/train2017, train/images, or images alone."""
    images = root / "images"
    folders = {child.name: child for child in _children(images)} or ({"images": images} if images.is_dir() else {})
    return folders or {child.name: child / "images" for child in _children(root) if (child / "images").is_dir()}


def _split_folder(root: Path, folders: dict[str, Path], split: str) -> Path:
    if split in folders or len(folders) == 1:
        return folders.get(split) or next(iter(folders.values()))
    matching = [name for name in folders if name.startswith(split)]
    if len(matching) != 1:
        raise InputError(f"{root}: {'several folders fit' if matching else 'no folder for'} the split {split}; there are {', '.join(folders)}")
    return folders[matching[0]]


def _annotation_files(root: Path) -> list[Path]:
    """COCO files, from the first place that has any."""
    for pattern in ("annotations/*.json", "labels/*.json", "*.json", "*/*.json"):
        found = [path for path in sorted(root.glob(pattern)) if re.search(rb'"(images|annotations|categories)"\s*:', _head(path, 1 << 20))]
        if found:
            return found
    return []


def _split_annotations(root: Path, files: list[Path], split: str) -> Path:
    """The annotation file of a split, from its name or its folder's (instances_val2017.json, valid/_annotations.coco.json)."""
    # COCO publishes captions and keypoints of the same pictures beside them.
    files = [path for path in files if path.name.startswith("instances_")] or files
    words = {path: [word for word in re.split(r"[^a-z0-9]+", str(path.relative_to(root)).lower()) if word] for path in files}
    exact = [path for path in files if split in words[path]]
    matching = exact or [path for path in files if any(word.startswith(split) for word in words[path])]
    if len(files) == 1 and not any(word.startswith(SPLITS) for word in words[files[0]]):
        matching = files
    if len(matching) != 1:
        there = ", ".join(str(path.relative_to(root)) for path in files)
        raise InputError(f"{root}: {'several annotation files fit' if matching else 'no annotation file for'} the split {split}; there are {there}")
    return matching[0]


def _children(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir()) if folder.is_dir() else []


def _holds_text(folder: Path) -> bool:
    return any(name.endswith(".txt") for _, _, files in os.walk(folder) for name in files)


def _head(path: Path, count: int) -> bytes:
    try:
        return read_bytes(str(path), count)
    except OSError:
        return b""
