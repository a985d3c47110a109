"""Rewrites annotation files of Datumaro, which CVAT and Intel's tools export, as COCO's: they say the same of boxes in other words."""

from __future__ import annotations

from typing import Any

_WHOLE_PICTURES = ("label", "caption")  # annotations that describe a picture and no object in it


def is_datumaro(document: Any) -> bool:
    """Tell whether a parsed JSON document has the shape of Datumaro's annotation files."""
    return isinstance(document, dict) and isinstance(document.get("items"), list) and isinstance(document.get("categories"), dict)


def as_coco(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document as COCO's lists of images, annotations and categories; what means nothing stays in, for COCO's reader to report."""
    labels = document["categories"].get("label")
    labels = labels.get("labels") if isinstance(labels, dict) else None
    categories = [
        {"id": number, "name": label.get("name") if isinstance(label, dict) else label}
        for number, label in enumerate(labels if isinstance(labels, list) else [])
    ]
    images: list[Any] = []
    annotations: list[Any] = []
    for number, item in enumerate(document["items"]):
        if not isinstance(item, dict):
            images.append(item)
            continue
        images.append({"id": number, **_picture(item)})
        found = item.get("annotations")
        annotations += [_annotation(number, entry) for entry in (found if isinstance(found, list) else []) if not _of_whole_picture(entry)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _picture(item: dict[str, Any]) -> dict[str, Any]:
    """Return file name, height and width of an item's picture; an item without a path is called like its picture, without the suffix."""
    medium = next((item[key] for key in ("image", "media") if isinstance(item.get(key), dict)), {})
    path, size = medium.get("path"), medium.get("size")
    if not isinstance(path, str) or not path.strip():
        path = f"{item.get('id')}.jpg"
    height, width = size if isinstance(size, list) and len(size) == 2 else (0, 0)
    return {"file_name": path, "height": height, "width": width}


def _of_whole_picture(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("type") in _WHOLE_PICTURES


def _annotation(picture: int, entry: Any) -> Any:
    if not isinstance(entry, dict):
        return entry
    attributes = entry.get("attributes")
    crowd = attributes.get("is_crowd", 0) if isinstance(attributes, dict) else 0
    found = {"image_id": picture, "category_id": entry.get("label_id"), "bbox": entry.get("bbox"), "iscrowd": crowd}
    if entry.get("type") == "polygon":
        return {**found, "bbox": None, "segmentation": [entry.get("points")]}
    if entry.get("type") == "mask":
        return {**found, "bbox": None, "segmentation": entry.get("rle")}
    return found
