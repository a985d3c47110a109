"""The list of all formats of data sets, and the search for the one that a folder has."""

from __future__ import annotations

import re
from pathlib import Path

from octrim.data.formats.coco import CocoFiles, Datumaro
from octrim.data.formats.labelme import Labelme
from octrim.data.formats.place import Format, Found, Place, head
from octrim.data.formats.supervisely import Supervisely
from octrim.data.formats.voc import PairLists, VocDevkit, VocLists
from octrim.data.formats.vocfolders import VocApart, VocBeside, VocFolders
from octrim.data.formats.yaml import DataYaml
from octrim.data.formats.yolo import Darknet, YoloApart, YoloBeside, YoloFolders, YoloLists
from octrim.data.pictures import is_picture
from octrim.errors import InputError

FORMATS: tuple[Format, ...] = (
    DataYaml("YOLO by data.yaml", "a data.yaml"),
    VocLists("Pascal VOC", "Annotations/ and ImageSets/Main/ (Pascal VOC)"),
    PairLists("VOC by lists of pairs (PaddleDetection)", "train.txt of `picture annotation` (PaddleDetection)"),
    Darknet("YOLO by obj.data (CVAT's YOLO 1.1, Darknet)", "obj.data (CVAT's YOLO 1.1)"),
    YoloLists("YOLO by lists of pictures", "train.txt and val.txt of pictures"),
    YoloFolders("YOLO in images/ and labels/", "images/ and labels/ (YOLO)"),
    Labelme("labelme", "*.json with shapes (labelme)"),
    Supervisely("Supervisely", "img/ and ann/*.json (Supervisely)"),
    Datumaro("Datumaro", "annotations/*.json with items (Datumaro)"),
    CocoFiles("COCO", "annotations/*.json, labels/*.json or *.json (COCO)"),
    VocDevkit("VOCdevkit", "VOC2007/, VOC2012/"),
    VocFolders("Pascal VOC without lists", "Annotations/ and JPEGImages/"),
    VocBeside("Pascal VOC beside the pictures (labelImg, Roboflow)", "*.xml beside pictures"),
    VocApart("Pascal VOC in another folder than the pictures", "*.xml of the pictures' names in another folder"),
    YoloBeside("YOLO beside the pictures (labelImg, Darknet)", "*.txt beside pictures"),
    YoloApart("YOLO in another folder than the pictures (labelImg)", "*.txt of the pictures' names in another folder"),
)
"""All formats, in the order in which they are tried: those that are described best by their own files come first."""

_DEEPEST = 3  # folders searched: archives often unpack into a folder that holds nothing but a folder
_LOOKED_AT = 50  # files per folder that are compared with formats that are not supported
_UNREAD = (
    (r"annotations\.xml", rb"<annotations[\s>]", "CVAT's own XML: export it from CVAT as COCO, YOLO or Pascal VOC"),
    (r".*\.json", rb'^\s*\[\s*\{[^\0]{0,4000}"coordinates"\s*:\s*\{', "CreateML's JSON: export it as COCO or YOLO"),
    (
        r".*\.json",
        rb'^\s*\[\s*\{[^\0]{0,4000}"(annotations|data|completions|rectanglelabels)"\s*:',
        "Label Studio's own JSON: export it as YOLO or COCO",
    ),
    (r".*\.json", rb'"shape_attributes"\s*:', "VIA's own JSON: export it from there as COCO"),
    (r".*\.csv", rb"region_shape_attributes", "VIA's table: export it from there as COCO"),
    (r".*\.json", rb'^\s*\{[^\0]{0,4000}"bounding_box"\s*:', "JSON of FiftyOne's own: export it as COCO or YOLO"),
    (r"_annotations\.txt", rb"", "a table of boxes (YOLOv4 PyTorch, Keras): export it as COCO or YOLO"),
    (r"_classes\.csv", rb"", "a table of classes of whole pictures: it has no boxes"),
    (r".*\.tfrecord.*", rb"", "TFRecord: export it as COCO or YOLO"),
    (r".*annotations\.csv", rb"", "a table of boxes (CSV): export it as COCO or YOLO"),
    (r".*\.(zip|tar|tar\.gz|tgz|rar|7z)", rb"", "an archive: unpack it"),
    (r"meta\.json", rb'"classes"\s*:', "a project of Supervisely, but there are no img/ and ann/ with annotations beside it"),
    (r".*\.txt", rb"^imagesource:|^(-?[\d.]+ ){8}[\w-]+ [0-2]\s", "an annotation of DOTA: convert it to YOLO or COCO"),
    (r".*\.txt", rb"^[A-Za-z_]+ -?[\d.]+ -?\d ( ?-?[\d.]+){11}", "an annotation of KITTI: convert it to YOLO or COCO"),
    (r".*\.txt", rb"^\d+,\d+,\d+,\d+,[01],\d+,-?\d+,-?\d+", "an annotation of VisDrone: convert it to YOLO or COCO"),
    (r".*\.json", rb'"box2d"\s*:', "an annotation of BDD100K: convert it to YOLO or COCO"),
    (
        r".*\.txt",
        rb"^[^\n]*\.(jpe?g|png|bmp) +\d+,\d+,\d+,\d+,\d+",
        "a list of pictures with their boxes (Keras, YOLOv4): convert it to YOLO or COCO",
    ),
    (r".*\.csv", rb"ImageID,", "a table of Open Images: convert it to YOLO or COCO"),
    (r"wider_face.*_gt\.txt", rb"", "an annotation of WIDER FACE: convert it to YOLO or COCO"),
    (r"gt\.txt", rb"^\d+,-?\d+,-?[\d.]+,-?[\d.]+,", "an annotation of MOT Challenge: convert it to YOLO or COCO"),
    (r".*\.jsonl", rb"", "a file of one JSON document per line: convert it to COCO"),
    (r".*\.odgt", rb"gtboxes", "an annotation of CrowdHuman: convert it to YOLO or COCO"),
)
"""Files of formats that are not supported: pattern of the name, pattern of the content, and what the file is and what to do with it."""


class NoDataSetError(InputError):
    """Error for a folder in which no format was found. missed: the name of each format and why it is not there."""

    def __init__(self, message: str, missed: list[tuple[str, str]]) -> None:
        super().__init__(message)
        self.missed = missed


def recognise(root: Path) -> tuple[Format, Found, Path]:
    """Return the format of a folder's data set, the parts that it found, and the folder that they are in: `root`, or the only folder below it.

    Raises NoDataSetError where there is none.
    """
    missed: list[tuple[str, str]] = []
    near: list[str] = []
    place = Place(root)
    for depth in range(_DEEPEST):
        for one in FORMATS:
            found = one.find(place)
            if isinstance(found, Found):
                return one, found, place.root
            if depth == 0:
                missed.append((one.name, found.reason))
                near += [f"{one.name}: {found.reason}"] * found.near
        if len(place.folders) != 1 or place.pictures:
            break
        place = Place(place.folders[0])
    looked_for = ", ".join(one.looks_for for one in FORMATS)
    hints = [*_unread(Place(root)), *near[:1]]
    raise NoDataSetError(f"{root}: no data set found{''.join(f'; {hint}' for hint in hints[:1])}; looked for {looked_for}", missed)


def _unread(place: Place) -> list[str]:
    """Return a line for each file in the folder, or near below it, that belongs to a format that is not supported."""
    found = []
    for folder in place.below(_DEEPEST):
        # Pictures are left out before the list is cut: there may be so many that they would crowd out the other files.
        for name in [name for name in folder.files if not is_picture(name)][:_LOOKED_AT]:
            for pattern, content, hint in _UNREAD:
                if re.fullmatch(pattern, name, re.IGNORECASE) and re.search(content, head(folder.root / name, 1 << 13)):
                    found.append(f"{name} is {hint}")
    return found
