"""The stages of a compression: their folders, and the names of the networks that they leave.

`octrim compress` writes these folders, and the report reads them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One stage of a compression.

    title: one word for logs and for the times in summary.json. folder: the stage's folder in the run's folder. network: name in summary.json of the
    network that the stage leaves, "" where it leaves none; shown: name of that network in tables; file: its file in the folder. timed_as: the network
    whose latency stands for its own, because both have the same table. tuned: whether it trains with the batch and the learning rate of fine-tuning.
    effort: rough duration of one epoch of the stage, of one game, or of the stage where it has neither, in epochs of the first training, as measured
    on a processor with a teacher and a cut to 1/8. leaves: name of the result that the stage leaves besides the row of its network, "" for none.
    """

    title: str
    folder: str
    network: str = ""
    shown: str = ""
    file: str = "last.safetensors"
    timed_as: str = ""
    tuned: bool = False
    effort: float = 0.0
    leaves: str = ""

    @property
    def results(self) -> tuple[str, ...]:
        """Names of the results without which its `stage.json` is of no use."""
        return tuple(name for name in ("row" if self.network else "", self.leaves) if name)

    @property
    def weights(self) -> str:
        """The file of the network that the stage leaves, in the run's folder; a stage that OcTrim 0.1 did left best.safetensors."""
        return f"{self.folder}/{self.file}"


TRAIN = Stage("train", "1-train", "original", "original", timed_as="original", effort=1)
STUDENT = Stage("student", "student", "student", "student", timed_as="student", tuned=True, effort=0.5)
SPARSIFY = Stage("sparsify", "2-sparsify", "sparse", "sparse", timed_as="original", effort=1.5)
SEARCH = Stage("search", "search", tuned=True, effort=0.5, leaves="search")
CHOOSE = Stage("choose", "choose", effort=5, leaves="dropping")
PRUNE = Stage("prune", "3-prune", "cut", "cut", file="model.safetensors", timed_as="finetuned", tuned=True, effort=0.5)
FINETUNE = Stage("finetune", "4-finetune", "finetuned", "fine-tuned", timed_as="finetuned", tuned=True, effort=0.5)
INT8 = Stage("int8", "int8", "int8", "int8", file="model.safetensors", timed_as="int8", tuned=True, effort=1, leaves="int8")
EXPORT = Stage("export", "5-export", leaves="export")
BENCH = Stage("bench", "6-bench", leaves="bench")
MATCH = Stage("match", "7-match", effort=1.2, leaves="match")
CONTROL = Stage("control", "control", "control", "control", timed_as="finetuned", tuned=True, effort=0.3)

STAGES = (TRAIN, STUDENT, SPARSIFY, CHOOSE, SEARCH, PRUNE, FINETUNE, INT8, EXPORT, BENCH, MATCH, CONTROL)
"""All stages that there can be, in the order in which they are done."""
