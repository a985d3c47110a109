"""Presets of `octrim compress`: how much it trains and with which settings; every number can also be given as an option."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from octrim.compression.options import Compression
from octrim.stages import CHOOSE, CONTROL, FINETUNE, INT8, MATCH, PRUNE, SEARCH, SPARSIFY, STAGES, STUDENT, TRAIN, Stage

FRESH_LR0 = 0.1
"""Learning rate at the start of a training with Muon that begins with fresh weights."""

MOST_TIMES = 4
"""How many times as long as a preset says a small data set is fine-tuned at most: 40 pictures taught no more in 600 epochs than in 300."""


@dataclass(frozen=True)
class Preset:
    """Settings of one whole compression.

    batch, nominal_batch: settings of the first training and of sparsity training. train_lr0: learning rate of the first training at the start, 0 for
    the recipe's. train_optimizer: optimizer of the first training. finetune_batch, finetune_lr0, finetune_optimizer, box_weight: settings of
    fine-tuning and of the control: small networks on small data want many steps, and large ones (docs/compression.md). step_epochs: epochs of the
    short fine-tuning after each cut but the last. cut_epochs: epochs of fine-tuning over which channels go; 0 cuts before it. cut_share: those epochs
    as a share of all of fine-tuning, where no option gives them and nothing else says how channels are to go. criterion: criterion that ranks
    channels in a cut before fine-tuning, where no sparsity training has set scales to zero. gradual_criterion: criterion of the cuts within
    fine-tuning. widths: what says how many channels each group keeps, importance or variance. reconstruct, recalibrate: whether to repair with
    training pictures where live channels are cut before fine-tuning; the constants of cut channels always go into their consumers. ema: moving
    average of every training, auto or published. dead: with a budget, fraction of all channels that sparsity training sets to zero; without a budget
    the plan gives the number. match_games: games of Pong that original and cut network each play at the end. search: number of shapes to try; 0 tries
    none. search_epochs: epochs of each in the first round. choose: whether blocks or levels that are dropped are chosen by measuring. int8: whether
    the fine-tuned network is made int8. qat: when it is trained with int8's roundings, auto, always or never. qat_epochs, qat_lr0: epochs and first
    learning rate of that training, whose batch, optimizer and loss are those of fine-tuning. own_layout: whether the small network has a layout of
    its own and fresh weights, and is not cut. least_steps: number of steps that fine-tuning has at least: a data set so small that its epochs have
    fewer gets more of them, up to MOST_TIMES as many. student_epochs, student_lr0: epochs and first learning rate of the training of a network with a
    layout of its own that is cut afterwards; 0 epochs: the network of the first training is cut.
    """

    train_epochs: int
    sparsify_epochs: int
    finetune_epochs: int
    batch: int = 16
    nominal_batch: int = 16
    train_lr0: float = 0.0
    train_optimizer: str = "SGD"
    finetune_batch: int = 4
    finetune_lr0: float = 0.03
    finetune_optimizer: str = "Muon"
    box_weight: float = 1.0
    cut_steps: int = 1
    step_epochs: int = 10
    cut_share: float = 0.0
    cut_epochs: int = 0
    distill: str = "output"
    ema: str = "auto"
    criterion: str = "group-l2"
    gradual_criterion: str = "taylor"
    widths: str = "importance"
    reconstruct: bool = False
    recalibrate: bool = False
    dead: str = "1/2"
    match_games: int = 0
    search: int = 0
    search_epochs: int = 0
    choose: bool = False
    int8: bool = False
    qat: str = "auto"
    qat_epochs: int = 0
    qat_lr0: float = 0.001
    own_layout: bool = False
    least_steps: int = 0
    student_epochs: int = 0
    student_lr0: float = FRESH_LR0

    def stages(self, control: bool) -> list[Stage]:
        """The stages that a run goes through, in order."""
        left_out = {
            SPARSIFY: not self.sparsify_epochs,
            STUDENT: not self.student_epochs,
            PRUNE: self.cut_epochs > 0 or self.own_layout,
            INT8: not self.int8,
            MATCH: not self.match_games,
            CONTROL: not control,
            CHOOSE: not self.choose,
            SEARCH: not self.search,
        }
        return [stage for stage in STAGES if not left_out.get(stage)]

    def epochs_of(self, stage: Stage) -> int | None:
        """Epochs that a stage trains for; None for a stage that has none."""
        between_cuts = (self.cut_steps - 1) * self.step_epochs
        epochs = {TRAIN: self.train_epochs, SPARSIFY: self.sparsify_epochs, PRUNE: between_cuts, FINETUNE: self.finetune_epochs, CONTROL: self.whole}
        epochs[INT8], epochs[STUDENT] = self.qat_epochs, self.student_epochs
        epochs[SEARCH] = sum(left * turn for left, turn in self.rounds())
        return epochs.get(stage)

    def effort_of(self, stage: Stage) -> float:
        """Rough duration of a stage in epochs of the first training: while channels go, an epoch of fine-tuning is about as long as one of those."""
        if stage is MATCH:
            return stage.effort * self.match_games
        epochs = self.epochs_of(stage)
        whole = stage.effort * (1 if epochs is None else epochs)
        return whole + (1 - stage.effort) * self.cut_epochs if stage is FINETUNE else whole

    def rounds(self) -> list[tuple[int, int]]:
        """Number of shapes and epochs of each in every round of the search."""
        found, left, epochs = [], self.search, self.search_epochs
        while left > 1:
            found.append((left, epochs))
            left, epochs = left // 2, 2 * epochs
        return found

    @property
    def uncut(self) -> Stage:
        """The stage that leaves the network that is cut."""
        if self.student_epochs:
            return STUDENT
        return SPARSIFY if self.sparsify_epochs else TRAIN

    @property
    def whole(self) -> int:
        """Epochs of all stages together, for which the control trains."""
        return self.before_finetune + self.finetune_epochs

    @property
    def before_finetune(self) -> int:
        """Epochs of all stages before the last fine-tuning."""
        return self.train_epochs + self.student_epochs + self.sparsify_epochs + (self.cut_steps - 1) * self.step_epochs


PRESETS = {
    "fast": Preset(20, 0, 30, cut_share=0.4, widths="variance"),
    "default": Preset(50, 0, 100, cut_share=0.4, widths="variance", least_steps=6000),
    "best": Preset(50, 0, 150, cut_share=0.4, widths="variance", least_steps=6000),
    "demo": Preset(18, 0, 20, batch=4, nominal_batch=4, train_lr0=FRESH_LR0, train_optimizer="Muon", cut_share=0.4, widths="variance", match_games=2),
}


def resolved(config: Compression, steps: int | None = None) -> Preset:
    """The preset that the options name, with the numbers that the options give in place of its own.

    steps: number of steps in an epoch of fine-tuning, which says how many epochs the preset's least number of steps takes; None before the data are
    read.

    Channels go within fine-tuning where the preset says so, unless the options ask for cuts in steps, or sparsity training has made channels dead.
    The variance of feature maps says how many each group keeps where the preset says so, unless the options say it.
    """
    preset = PRESETS[config.preset or "default"]
    own = {field.name: getattr(config, field.name, None) for field in dataclasses.fields(Preset)}
    preset = dataclasses.replace(preset, **{name: value for name, value in own.items() if value not in (None, "preset")})
    preset = dataclasses.replace(preset, choose=any(config.chooses))
    if steps is not None and config.finetune_epochs is None:
        least = -(-preset.least_steps // steps)
        preset = dataclasses.replace(preset, finetune_epochs=min(max(preset.finetune_epochs, least), MOST_TIMES * preset.finetune_epochs))
    # Fresh weights want three times the rate of trained ones, where steps go along an orthogonal momentum.
    fresh_lr0 = FRESH_LR0 if preset.finetune_optimizer == "Muon" else preset.finetune_lr0
    if config.cuts_student:
        preset = dataclasses.replace(preset, student_epochs=preset.student_epochs or preset.finetune_epochs, student_lr0=fresh_lr0)
    if config.student is not None and not config.cuts_student:
        rate = fresh_lr0 if config.finetune_lr0 is None else preset.finetune_lr0
        preset = dataclasses.replace(preset, own_layout=True, finetune_lr0=rate, widths="importance")
    elif config.widths is None and (preset.sparsify_epochs or config.keep_map is not None or (config.keep is not None and config.budget is None)):
        # Sparsity training, a keep-map and a fraction say by themselves how many channels a layer keeps.
        preset = dataclasses.replace(preset, widths="importance")
    if preset.search and not preset.search_epochs:
        preset = dataclasses.replace(preset, search_epochs=max(preset.finetune_epochs // 20, 2))
    if preset.int8 and preset.qat != "never" and not preset.qat_epochs:
        preset = dataclasses.replace(preset, qat_epochs=max(preset.finetune_epochs // 10, 1))
    if config.cut_epochs is None and config.cut_steps is None and not preset.sparsify_epochs and not preset.own_layout:
        return dataclasses.replace(preset, cut_epochs=round(preset.cut_share * preset.finetune_epochs))
    return preset
