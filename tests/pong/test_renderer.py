"""Frames: what is drawn is where the boxes say, can be seen, and is the same every time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from octrim.errors import InputError
from octrim.pong.camera import develop
from octrim.pong.looks import LUMA, PALE, VISIBLE, Look, visibility
from octrim.pong.physics import LEFT, RIGHT, Ball, Game, Paddle, Rules, Scene, paddle_box
from octrim.pong.renderer import BALL, CLASSIC, PADDLE, field_view, random_look, render
from octrim.pong.shapes import visible

FAR = -50.0
SEEN = 4  # levels that a pixel must change by


def scene_of(rules: Rules, x: float, y: float, left: float = 0.5, right: float = 0.5, time: float = 1.0) -> Scene:
    return Scene(rules, Ball(x, y, 0.0, 0.0, 0.0), (Paddle(left, 0.0), Paddle(right, 0.0)), (3, 12), 5, "play", 0.0, LEFT, time)


def alone(scene: Scene) -> tuple[Scene, list[Scene]]:
    """The scene without anything in it, and with each of its three objects alone."""
    left, right = scene.paddles
    no_ball, no_left, no_right = replace(scene.ball, x=FAR), replace(left, y=FAR), replace(right, y=FAR)
    empty = replace(scene, ball=no_ball, paddles=(no_left, no_right))
    return empty, [replace(empty, ball=scene.ball), replace(empty, paddles=(left, no_right)), replace(empty, paddles=(no_left, right))]


def random_scene(generator: np.random.Generator, overlap: bool) -> Scene:
    uniform = generator.uniform
    rules = Rules(
        ball_radius=uniform(0.012, 0.04),
        paddle_width=uniform(0.015, 0.05),
        paddle_height=uniform(0.08, 0.3),
        paddle_inset=uniform(0, 0.1),
        width=uniform(1, 2),
    )
    scene = scene_of(rules, uniform(-0.05, rules.width + 0.05), uniform(-0.02, 1.02), uniform(), uniform(), uniform(0, 9))
    if overlap:
        x1, y1, x2, y2 = paddle_box(rules, RIGHT, scene.paddles[RIGHT].y)
        scene = replace(scene, ball=replace(scene.ball, x=uniform(x1, x2), y=uniform(y1, y2)))
    return scene


@pytest.mark.slow
def test_boxes_are_the_extents_of_what_changes() -> None:
    generator = np.random.default_rng(0)
    cut = absent = 0
    for number in range(60):
        look = CLASSIC
        if number % 3:
            look = replace(random_look(generator), noise=0.0, blur=0.0, shake=(0.0, 0.0), jpeg=0)
        width, height = generator.integers(160, 560, 2).tolist()
        scene = random_scene(generator, overlap=number % 5 == 0)
        nothing, single = alone(scene)
        background = render(nothing, width, height, look)
        assert not len(background.boxes)
        expected = []
        for one in single:
            picture = render(one, width, height, look)
            changed = np.abs(picture.image.astype(int) - background.image).max(2) >= SEEN
            if not len(picture.boxes):
                absent += 1
                assert not changed.any()
                continue
            rows, columns = np.nonzero(changed)
            extents = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            assert np.abs(picture.boxes[0] - extents).max() < 1, (number, picture.boxes, extents)
            cut += (extents[:2] == 0).any() or extents[2] == width or extents[3] == height
            expected.append(picture.boxes[0])
        together = render(scene, width, height, look)  # what covers what does not change the boxes
        np.testing.assert_array_equal(together.boxes, np.reshape(expected, (-1, 4)))
        assert (together.boxes >= 0).all()
        assert (together.boxes <= (width, height, width, height)).all()
    assert cut > 10
    assert absent > 3


@pytest.mark.parametrize(("width", "height"), [(320, 240), (640, 480), (960, 720)])
def test_most_pixels_of_a_box_belong_to_it(width: int, height: int) -> None:
    """Pixels of which at least half is covered end within half a pixel of the box."""
    generator = np.random.default_rng(1)
    for _ in range(10):
        scene = scene_of(Rules(), generator.uniform(0.1, 1.2), generator.uniform(0.1, 0.9))
        nothing, single = alone(scene)
        picture = render(single[BALL], width, height)
        change = np.abs(picture.image.astype(int) - render(nothing, width, height).image).max(2)
        rows, columns = np.nonzero(change >= change.max() / 2)
        assert np.abs(picture.boxes[0] - (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)).max() < 0.52


def test_places_by_hand() -> None:
    picture = render(scene_of(Rules(), 2 / 3, 0.25, left=0.5, right=0.75), 640, 480)
    assert picture.image.shape == (480, 640, 3)
    assert (picture.image.dtype, picture.boxes.dtype, picture.classes.dtype) == (np.uint8, np.float32, np.int64)
    assert picture.classes.tolist() == [BALL, PADDLE, PADDLE]
    # ball: 320, 120 and a radius of .02 * 480; paddles: .025 x .18 of 480, their backs .04 * 480 from the ends
    hand = [[310.4, 110.4, 329.6, 129.6], [19.2, 196.8, 31.2, 283.2], [608.8, 316.8, 620.8, 403.2]]
    np.testing.assert_allclose(picture.boxes, hand, atol=1e-4)
    assert picture.image[120, 320].tolist() == list(CLASSIC.ball)
    assert picture.image[240, 25].tolist() == list(CLASSIC.left)
    assert picture.image[360, 615].tolist() == list(CLASSIC.right)


def test_other_aspects_letterbox_the_field() -> None:
    view = field_view(Rules(), 1000, 480)
    assert (view.scale, view.left, view.top) == pytest.approx((480, 180, 0))
    assert view.to_field(view.to_pixels((0.1, 0.2, 0.3, 0.4))) == pytest.approx((0.1, 0.2, 0.3, 0.4))
    picture = render(scene_of(Rules(), 2 / 3, 0.5), 1000, 480)
    np.testing.assert_allclose(picture.boxes[0], [490.4, 230.4, 509.6, 249.6], atol=1e-4)
    assert picture.image[5, 5].tolist() == list(CLASSIC.outside or ())
    moved = replace(CLASSIC, zoom=0.5, shift=(0.1, -0.2))
    box = render(scene_of(Rules(), 2 / 3, 0.5), 1000, 480, moved).boxes[0]
    np.testing.assert_allclose(box, [595.2, 139.2, 604.8, 148.8], atol=1e-4)


def test_a_disc_cut_by_the_border_shows_a_segment() -> None:
    # radius 10, centre 6 left of the border: the chord's half is 8
    assert visible((-16, 20, 4, 40), 1.0, 100, 100) == pytest.approx((0, 22, 4, 38))
    assert visible((20, 96, 40, 116), 1.0, 100, 100) == pytest.approx((22, 96, 38, 100))
    assert visible((-16, 20, 4, 40), 0.0, 100, 100) == pytest.approx((0, 20, 4, 40))
    # beyond a corner its box reaches into the picture, the disc does not
    left, top, right, bottom = visible((-18, -18, 2, 2), 1.0, 100, 100)
    assert right < left
    assert bottom < top


def test_what_is_not_in_the_picture_has_no_box() -> None:
    rules = Rules()
    inside = scene_of(rules, 0.5, 0.5)
    for x in (-0.03, FAR, rules.width + 0.03, 1000):
        assert render(replace(inside, ball=replace(inside.ball, x=x)), 640, 480).classes.tolist() == [PADDLE, PADDLE]
    sliver = replace(inside, ball=replace(inside.ball, x=-0.02 + 1.9 / 480))
    assert render(sliver, 640, 480).classes.tolist() == [PADDLE, PADDLE]
    np.testing.assert_array_equal(render(sliver, 640, 480).image, render(replace(inside, ball=replace(inside.ball, x=FAR)), 640, 480).image)
    more = replace(inside, ball=replace(inside.ball, x=-0.02 + 2.1 / 480))
    assert render(more, 640, 480).classes.tolist() == [BALL, PADDLE, PADDLE]
    assert render(replace(inside, phase="over"), 640, 480).classes.tolist() == [PADDLE, PADDLE]
    assert render(inside, 40, 30).classes.tolist() == [BALL, PADDLE, PADDLE]  # small, but all there


def test_the_same_frame_every_time_and_its_own() -> None:
    scene = scene_of(Rules(), 0.5, 0.5)
    for look in (CLASSIC, replace(random_look(np.random.default_rng(3)), noise=5.0)):
        first = render(scene, 320, 240, look)
        kept = first.image.copy()
        first.image[:] = 0
        np.testing.assert_array_equal(render(scene, 320, 240, look).image, kept)
    later = render(replace(scene, time=1.1), 320, 240, look)
    assert (later.image != kept).mean() > 0.3  # noise does not stand still


def test_numbers_are_drawn() -> None:
    game = Game(Rules(serve_delay=3.0))
    frames = {}
    for wait in (3.0, 1.5, 0.5):
        frames[wait] = render(replace(game.scene(), wait=wait), 640, 480).image
        assert (frames[wait][240, 320] == CLASSIC.ball).all()  # the ball waits in the middle
    assert len({frame.tobytes() for frame in frames.values()}) == 3  # 3, 2, 1
    np.testing.assert_array_equal(render(replace(game.scene(), wait=2.9), 640, 480).image, frames[3.0])
    playing = scene_of(Rules(), 0.5, 0.5)
    for change in ({"score": (4, 12)}, {"score": (3, 13)}, {"rally": 6}):
        changed = render(replace(playing, **change), 640, 480)
        assert (changed.image != render(playing, 640, 480).image).any()
        assert len(changed.boxes) == 3
    without = replace(CLASSIC, digits="none")
    np.testing.assert_array_equal(render(playing, 640, 480, without).image, render(replace(playing, score=(0, 0)), 640, 480, without).image)


@pytest.mark.slow
def test_objects_of_random_looks_stand_out() -> None:
    """Inside and around an object, brightness differs by more than the noise of the camera, also after everything else it does."""
    generator = np.random.default_rng(4)
    checked = 0
    for _ in range(60):
        look = replace(random_look(generator), noise=0.0)
        assert visibility(look) >= VISIBLE
        scene = scene_of(Rules(), generator.uniform(0.2, 1.1), generator.uniform(0.1, 0.9))
        picture = render(scene, 640, 480, look)
        luma = picture.image @ LUMA
        for x1, y1, x2, y2 in picture.boxes:
            if x2 - x1 < 8 or y2 - y1 < 8:
                continue
            middle_x, middle_y = round((x1 + x2) / 2), round((y1 + y2) / 2)
            inner = luma[middle_y - 2 : middle_y + 2, middle_x - 2 : middle_x + 2].mean()
            margin = 6 + round(480 * (3 * look.blur + max(np.abs(look.shake))))
            ring = luma[max(round(y1) - margin, 0) : round(y2) + margin, max(round(x1) - margin, 0) : round(x2) + margin].ravel()
            assert abs(inner - np.median(ring)) > 20 or abs(inner - np.percentile(ring, (5, 95))).max() > 40, look
            checked += 1
    assert checked > 120


def test_distractors_are_paler_than_objects() -> None:
    generator = np.random.default_rng(5)
    count = 0
    for _ in range(200):
        look = random_look(generator)
        nearest = min(np.linalg.norm(np.subtract(colour, look.background)) for colour in (look.ball, look.left, look.right))
        for distractor in look.distractors:
            assert np.linalg.norm(np.subtract(distractor.colour, look.background)) <= PALE * nearest + 2
            assert distractor.thing != "bar" or abs(distractor.angle) <= 60  # never upright
            count += 1
    assert count > 200


def test_random_looks_vary_and_repeat() -> None:
    looks = [random_look(np.random.default_rng(seed)) for seed in range(100)]
    assert looks == [random_look(np.random.default_rng(seed)) for seed in range(100)]
    assert len(set(looks)) == 100
    assert {look.ball_shape for look in looks} == {"disc", "square"}
    assert {look.texture for look in looks} >= {"plain", "gradient", "clouds", "stripes", "checks", "grain", "photo"}
    for name in ("blur", "noise", "jpeg", "vignette", "scanlines", "distractors"):
        assert 0 < sum(bool(getattr(look, name)) for look in looks) < 100, name


def test_what_the_camera_does_by_hand() -> None:
    grey = np.full((40, 60, 3), 100, np.uint8)

    def developed(**changes: object) -> np.ndarray:
        return develop(grey, replace(Look(), **changes), 40.0, np.random.default_rng(0))

    assert developed() is grey
    value = ((100 / 255 - 0.5) * 0.8 + 0.5 + 0.1) ** 1.3
    assert np.unique(developed(contrast=0.8, brightness=0.1, gamma=1.3)).tolist() == [round(255 * value)]
    assert np.unique(developed(scanlines=0.25)[1::2]).tolist() == [75]
    assert np.unique(developed(scanlines=0.25)[::2]).tolist() == [100]
    assert developed(noise=5.0).std() == pytest.approx(5, rel=0.05)
    corners = developed(vignette=0.3)[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert np.unique(corners).tolist() == [70]
    edge = grey.copy()
    edge[:, 30:] = 200
    blurred = develop(edge, replace(Look(), blur=0.05), 40.0, np.random.default_rng(0))[20, :, 0]
    assert np.sqrt(np.average((np.arange(59) - 29) ** 2, weights=np.diff(blurred.astype(int)))) == pytest.approx(2, rel=0.1)
    shaken = develop(edge, replace(Look(), shake=(0.2, 0.0)), 40.0, np.random.default_rng(0))[20, :, 0]
    assert np.count_nonzero(np.diff(shaken.astype(int))) in (8, 9)  # a path of 8 pixels
    assert 0 < np.abs(develop(edge, replace(Look(), jpeg=30), 40.0, np.random.default_rng(0)).astype(int) - edge).mean() < 10


def test_a_picture_needs_pixels() -> None:
    with pytest.raises(InputError, match="0 x 240"):
        render(scene_of(Rules(), 0.5, 0.5), 0, 240)
    assert render(scene_of(Rules(), 0.5, 0.5), 1, 1).image.shape == (1, 1, 3)
