"""Pictures without labels: which are taken, how they are mixed into batches, and what mosaics are made of."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octrim.data.augment import Augmentation
from octrim.data.dataset import Dataset
from octrim.data.loader import Loader
from octrim.data.shuffle import Shuffle
from octrim.data.unlabelled import Unlabelled, open_unlabelled, places_of
from octrim.errors import InputError
from tests.data.test_loader import digest
from tests.data.test_samples import samples, trainable


@st.composite
def mixtures(draw: st.DrawFn) -> tuple[int, int, int, int, int]:
    """Numbers of labelled pictures, of unlabelled ones, of their places in a batch, of pictures in a batch and of ranks."""
    ranks = draw(st.integers(1, 4))
    batch = ranks * draw(st.integers(2, 5))
    return draw(st.integers(1, 30)), draw(st.integers(1, 40)), draw(st.integers(1, batch - ranks)), batch, ranks


@given(mixtures())
def test_every_picture_has_its_turn(mixture: tuple[int, int, int, int, int]) -> None:
    labelled, unlabelled, places, batch, ranks = mixture
    shuffles = [Shuffle(labelled, unlabelled, places, 7, batch, rank, ranks) for rank in range(ranks)]
    alone = Shuffle(labelled, unlabelled, places, 7, batch, 0, 1)
    came: list[tuple[int, int]] = []
    for epoch in range(3):
        with_labels: list[int] = []
        for number in range(len(alone)):
            indices, turns = alone.share(epoch, number)
            assert len(indices) == alone.pictures(number) <= batch
            own = indices < labelled
            assert own[: own.sum()].all()  # the labelled pictures come first
            assert (turns[own] == epoch).all() and (~own).sum() == places
            with_labels += indices[own].tolist()
            came += zip(turns[~own].tolist(), indices[~own].tolist(), strict=True)
            parts = [shuffle.share(epoch, number) for shuffle in shuffles]
            assert all((part < labelled).any() and len(part) <= batch // ranks for part, _ in parts)
            shared = [pair for part in parts for pair in zip(*(numbers.tolist() for numbers in part), strict=True)]
            whole = list(zip(indices.tolist(), turns.tolist(), strict=True))
            assert sorted(shared)[: len(whole)] == sorted(shared) == sorted(whole) or len(with_labels) == labelled  # the last batch is filled up
            assert set(whole) <= set(shared)
        assert sorted(with_labels) == list(range(labelled))
        assert with_labels == np.random.default_rng((7, epoch)).permutation(labelled).tolist()
    assert len(set(came)) == len(came)  # no sample comes twice
    passes, last = divmod(len(came), unlabelled)
    for turn in range(passes):
        assert sorted(index for one, index in came if one == turn) == list(range(labelled, labelled + unlabelled))
    assert [turn for turn, _ in came] == sorted(turn for turn, _ in came)
    assert sum(turn == passes for turn, _ in came) == last


@pytest.mark.parametrize(
    ("share", "labelled", "unlabelled", "batch", "ranks", "places"),
    [
        (None, 156, 467, 4, 1, 3),  # three quarters of all pictures
        (None, 160, 160, 16, 1, 8),
        (None, 100, 1_000_000, 16, 1, 12),  # no more than three quarters
        (None, 1000, 10, 4, 1, 1),  # at least one
        (0.5, 10, 1000, 4, 2, 2),
        (0.99, 10, 1000, 4, 1, 3),
    ],
)
def test_places(share: float | None, labelled: int, unlabelled: int, batch: int, ranks: int, places: int) -> None:
    assert places_of(share, labelled, unlabelled, batch, ranks) == places


def test_places_that_make_no_sense() -> None:
    with pytest.raises(InputError, match="batch is 1: a batch with labelled and unlabelled pictures has at least 2"):
        places_of(None, 10, 10, 1, 1)
    with pytest.raises(InputError, match="3 unlabelled pictures in a batch of 4 leave 1 with labels for 2 processes"):
        places_of(0.75, 10, 10, 4, 2)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Unlabelled]:
    """Seven labelled pictures and five unlabelled ones; the latter are bright, the former are not."""
    root = tmp_path_factory.mktemp("both")
    labelled = trainable(root / "labelled", [(40 + number, 64) for number in range(7)])
    others = trainable(root / "others", [(64, 40 + number) for number in range(5)], [(0, 0, 44, 64)])
    return labelled, Unlabelled(others, 4, 3, "digest")


AUGMENTATION = Augmentation(mixup=0.3, degrees=5)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_is_entered_anywhere_with_any_workers(both: tuple[Dataset, Unlabelled], workers: int) -> None:
    labelled, others = both
    with Loader(labelled, 64, 4, AUGMENTATION, workers=0, unlabelled=others) as loader:
        whole = digest(loader.epoch(1))
    with Loader(labelled, 64, 4, AUGMENTATION, workers=workers, cache="ram", unlabelled=others) as loader:
        assert [loader.pictures_in(number) for number in range(len(loader))] == [4] * 7
        for first in (0, 3):
            assert digest(loader.epoch(1, first=first)) == whole[first:]
        for batch in loader.epoch(2):
            assert batch.labelled == 1 and (batch.indices >= 7).tolist() == [False, True, True, True]
            assert set(batch.targets[:, 0].tolist()) <= {0}  # nothing is known of the others


def test_labelled_samples_are_what_they_are_without_others(both: tuple[Dataset, Unlabelled]) -> None:
    labelled, others = both
    mixed = samples(labelled.with_unlabelled(others.dataset), 64, AUGMENTATION)
    mixed._labelled = len(labelled)
    alone = samples(labelled, 64, AUGMENTATION)
    for turn, index in ((0, 0), (1, 6), (5, 3)):
        for first, second in zip(mixed.sample(turn, index), alone.sample(turn, index), strict=True):
            np.testing.assert_array_equal(first, second)


def test_a_mosaic_has_one_kind_of_pictures(both: tuple[Dataset, Unlabelled]) -> None:
    labelled, others = both
    recipe = Augmentation(hsv_h=0, hsv_s=0, hsv_v=0, scale=0, translate=0, fliplr=0)
    mixed = samples(labelled.with_unlabelled(others.dataset), 64, recipe)
    mixed._labelled = len(labelled)
    for turn in range(8):
        dark = mixed.sample(turn, turn % 7).image
        bright = mixed.sample(turn, 7 + turn % 5).image
        assert (dark.min(2) < 60).mean() > 0.2
        assert (bright.min(2) > 60).mean() > 0.95  # only bright pictures and the grey between them


def test_whose_bytes_are_known_already_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    known = trainable(tmp_path / "known", [(40 + number, 64) for number in range(6)])
    train_set, val_set = known.subset([0, 1, 2, 3]), known.subset([4, 5])
    new = trainable(tmp_path / "new", [(50, 70 + number) for number in range(4)])
    for number, path in enumerate((known.paths[4], known.paths[5], known.paths[0], new.paths[1])):
        shutil.copy(path, tmp_path / "new" / f"copy{number}.png")
    (tmp_path / "new" / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    found = open_unlabelled([str(tmp_path / "new")], train_set, val_set, 4, 1, None)
    assert sorted(found.dataset.report.counts.items()) == [
        ("picture is damaged, truncated or of an unknown format, left out", 1),
        ("unlabelled picture that is also a labelled one, left out", 1),
        ("unlabelled picture that is also a validation picture, left out", 2),
        ("unlabelled picture whose file is there twice, left out once", 1),
    ]
    assert len(found.dataset) == 4 and len(found.dataset.boxes) == 0
    assert found.facts() == {"pictures": 4, "places": 2, "batch": 4, "digest": found.digest}
    assert "4 pictures" in found.line(4) and "2 of 4 places" in found.line(4) and "2 batches, with 4 pictures without labels" in found.line(4)
    again = open_unlabelled([str(tmp_path / "new")], train_set, None, 4, 1, None)
    assert len(again.dataset) == 6 and again.digest != found.digest
    with pytest.raises(InputError, match=r"none of 1 pictures is left to join the training; 1 x unlabelled picture that is also a labelled one"):
        open_unlabelled([known.paths[1]], train_set, val_set, 4, 1, None)


def test_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    train_set = trainable(tmp_path / "known", [(40, 64)])
    new = trainable(tmp_path / "new", [(50, 70 + number) for number in range(4)])
    (tmp_path / "list.txt").write_text("new/000.png\nnew/001.png\n")

    def opened(*sources: object) -> Unlabelled:
        return open_unlabelled([str(source) for source in sources], train_set, None, 4, 1, 0.5)

    whole = opened(tmp_path / "new")
    assert whole.dataset.paths == new.paths
    np.testing.assert_array_equal(whole.dataset.sizes, new.sizes)
    several = opened(tmp_path / "list.txt", tmp_path / "new" / "00[23].png")
    assert several.dataset.paths == new.paths and several.digest == whole.digest
    shutil.copytree(tmp_path / "new", tmp_path / "elsewhere")
    assert opened(tmp_path / "elsewhere").digest == whole.digest
    data = tmp_path / "set"
    shutil.copytree(tmp_path / "new", data / "images" / "train")
    (data / "data.yaml").write_text("train: images/train\nval: images/train\nnames: [thing]\n")
    assert opened(data / "images").digest == whole.digest  # in a folder below
    assert opened(data).digest == opened(data / "data.yaml").digest == whole.digest
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "film.mp4").write_bytes(b"film")
    shutil.copy(new.paths[0], tmp_path / "films")
    with pytest.raises(InputError, match=r"films: expected pictures, found a video, .* ffmpeg -i VIDEO %06d.jpg makes pictures"):
        opened(tmp_path / "films")
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        opened(tmp_path / "nowhere")
