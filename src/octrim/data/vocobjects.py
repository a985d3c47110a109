"""Reads Pascal VOC annotations: one XML file per picture, with a name and a box for every object."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from xml.etree.ElementTree import Element, ParseError

import numpy as np

from octrim.data.labelfiles import AREA, DIFFICULT, INCOMPLETE, NUMBER, POLYGON, READ, UNREADABLE, Objects, read_labels
from octrim.data.shapes import polygon_box
from octrim.data.texts import decoded_xml
from octrim.data.values import flag, number

# A document type that declares nothing and names no file that might, such as `<!DOCTYPE annotation>`, is harmless and is removed.
_DOCTYPE = re.compile(rb"""\A([^<]{0,9}(?:<\?xml[^>]{0,200}>)?\s{0,99})<!DOCTYPE\s+[\w.-]{1,100}\s{0,99}>""")
SIDES = ("xmin", "ymin", "xmax", "ymax")


def voc_labels(paths: Sequence[str]) -> dict[str, np.ndarray]:
    """Return a table (see `labelfiles`) of VOC annotations: rows `class xmin ymin xmax ymax` as written; `line` is the object's number, from 1."""
    digests, states, contents = read_labels(paths)
    objects = Objects(len(paths))
    for index, data in enumerate(contents):
        if states[index] != READ:
            continue
        root = xml_root(data)
        if root is None:
            states[index] = UNREADABLE
            continue
        for number_, item in enumerate(root.iter("object"), 1):
            objects.add(index, number_, _voc_object(item))
    return {"digest": digests, "state": states} | objects.table()


def xml_root(data: bytes) -> Element | None:
    """Return the root of an XML document in any encoding that tools write; None where it is damaged, or its DTD is more than a name."""
    # This parser is slow, but takes no declarations of entities, by which a file of a kilobyte can expand to gigabytes.
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    data = _DOCTYPE.sub(rb"\1", data, count=1)
    try:
        return fromstring(data, forbid_dtd=True)  # a DTD can also give elements attributes by the thousand
    except DefusedXmlException:
        return None
    except (ParseError, ValueError, LookupError, RecursionError):  # expat does not know the encoding, or the declared one is wrong
        pass
    try:
        return fromstring(decoded_xml(data), forbid_dtd=True)
    except (DefusedXmlException, ParseError, ValueError, LookupError, RecursionError):
        return None


def _voc_object(item: Element) -> tuple[str, list[float], int] | int:
    """Return the name, box and mark of an object, or its place in ROW_PROBLEMS where it is unusable."""
    name = re.sub(r"\s+", " ", (item.findtext("name") or "").strip())
    mark = DIFFICULT if flag(item.findtext("difficult")) else 0
    box = item.find("bndbox")
    sides = [] if box is None else [box.findtext(side) for side in SIDES]
    if name and (not sides or None in sides):
        around = _outline(item)
        if around is not None:
            return (name, around, mark | POLYGON) if around[0] < around[2] and around[1] < around[3] else AREA
    if not name or not sides or None in sides:
        return INCOMPLETE
    try:
        values = [float(side or "") for side in sides]
    except ValueError:
        return NUMBER
    if not np.isfinite(values).all():
        return NUMBER
    if values[0] >= values[2] or values[1] >= values[3]:
        return AREA
    return name, values, mark


def _outline(item: Element) -> list[float] | None:
    """Return the box around an object that has a polygon (`x1 y1 x2 y2 ..`, or points `pt`) or a rotated box (`robndbox`); None for others."""
    polygon = item.find("polygon")
    if polygon is not None:
        points = list(_points(polygon))
        return polygon_box(points) if len(points) > 2 else None
    rotated = item.find("robndbox")
    if rotated is None:
        return None
    values = [number(rotated.findtext(key) or "") for key in ("cx", "cy", "w", "h", "angle")]
    if None in values:
        return None
    cx, cy, width, height, angle = np.asarray(values, np.float64)
    across = abs(width * np.cos(angle)) + abs(height * np.sin(angle))
    down = abs(width * np.sin(angle)) + abs(height * np.cos(angle))
    return [float(cx - across / 2), float(cy - down / 2), float(cx + across / 2), float(cy + down / 2)]


def _points(polygon: Element) -> Iterator[list[str]]:
    for point in (*polygon.findall("pt"), *polygon.findall("point")):
        yield [point.findtext("x") or "", point.findtext("y") or ""]
    for place in range(1, len(polygon) // 2 + 1):
        x, y = polygon.findtext(f"x{place}"), polygon.findtext(f"y{place}")
        if x is not None and y is not None:
            yield [x, y]
