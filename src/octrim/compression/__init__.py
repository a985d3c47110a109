"""`octrim compress`: from a detector to a small one in one command, stage by stage, each evaluated, all of it resumable.

from octrim.compression import compress
done = compress(weights="yolov5n.pt", data="bccd", imgsz=320, keep="1/8", preset="fast")
print(done.summary["stages"]["finetuned"]["mAP50-95"], done.summary["times"]["speedup"])
"""

from octrim.compression.command import Compressed, compress, compress_command
from octrim.compression.presets import PRESETS, Preset

__all__ = ["PRESETS", "Compressed", "Preset", "compress", "compress_command"]
