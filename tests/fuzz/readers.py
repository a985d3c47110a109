"""The list of all readers of files that users bring."""

from __future__ import annotations

from tests.fuzz.data import (
    CocoJson,
    CocoOutlines,
    DarknetLists,
    DataIndex,
    DataYaml,
    DatumaroJson,
    Hints,
    LabelMap,
    LabelmeJson,
    NameFiles,
    PairLists,
    Pictures,
    SourceList,
    SuperviselyJson,
    Video,
    VocEncodings,
    VocXml,
    YoloLabels,
    YoloOutlines,
)
from tests.fuzz.deployables import EngineHeader, LitertFile, NcnnFolder, OnnxFile, OnnxInOpenvino, OpenvinoFile, PaddleFolder
from tests.fuzz.networks import Checkpoint, Hyper, KeepMap, LatencyTables, LayoutYaml, ModelFile, RunFolder, TrainingState
from tests.fuzz.reader import Reader

READERS: dict[str, tuple[type[Reader], int]] = {
    "checkpoint": (Checkpoint, 12_000),
    "model file": (ModelFile, 12_000),
    "training state": (TrainingState, 3_000),
    "layout": (LayoutYaml, 8_000),
    "data.yaml": (DataYaml, 7_000),
    "hyper-parameters": (Hyper, 3_000),
    "keep-map": (KeepMap, 3_000),
    "latency table": (LatencyTables, 5_000),
    "run folder": (RunFolder, 4_000),
    "YOLO labels": (YoloLabels, 8_000),
    "VOC annotations": (VocXml, 8_000),
    "COCO annotations": (CocoJson, 8_000),
    "YOLO outlines": (YoloOutlines, 5_000),
    "VOC encodings": (VocEncodings, 5_000),
    "COCO outlines": (CocoOutlines, 5_000),
    "labelme annotations": (LabelmeJson, 5_000),
    "Darknet lists": (DarknetLists, 5_000),
    "lists of pairs": (PairLists, 5_000),
    "Supervisely annotations": (SuperviselyJson, 5_000),
    "Datumaro annotations": (DatumaroJson, 5_000),
    "class names": (NameFiles, 5_000),
    "labelmap.txt": (LabelMap, 5_000),
    "hints at other formats": (Hints, 5_000),
    "index of a data set": (DataIndex, 2_000),
    "pictures": (Pictures, 12_000),
    "video": (Video, 1_000),
    "list of sources": (SourceList, 5_000),
    "engine header": (EngineHeader, 5_000),
    "ONNX in ONNX Runtime": (OnnxFile, 3_000),
    "ONNX in OpenVINO": (OnnxInOpenvino, 2_000),
    "OpenVINO IR": (OpenvinoFile, 2_000),
    "Paddle Inference": (PaddleFolder, 500),
    ".tflite": (LitertFile, 1_000),
    "ncnn": (NcnnFolder, 2_000),
}
"""Every reader, and how many inputs it gets offline."""
