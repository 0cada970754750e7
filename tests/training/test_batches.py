"""Tests of augmentation and batches."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch

from stream_seg.datasets.labelled import Pairs, synth_label_table
from stream_seg.datasets.palettes import CAMVID
from stream_seg.errors import ConfigError
from stream_seg.training.augment import augment, change_light, paste_classes, repaint_classes, rotate_image
from stream_seg.training.batches import draw_synthetic, iterate_batches, make_batch
from stream_seg.types import VOID, Classes
from tests.support.coloured_fields import coloured_fields
from tests.training.test_training import CLASSES, recipe


def halves(count: int = 6) -> Pairs:
    """Return images that are dark (class 0) on the left and bright (class 1) on the right."""
    images, labels = [], []
    for number in range(count):
        truth = np.zeros((40, 60), np.uint8)
        truth[:, 10 + 7 * number :] = 1
        images.append(cv2.merge([truth * 200 + 20] * 3))
        labels.append(truth)
    return Pairs(images, labels)


def test_augmentation_keeps_image_and_labels_aligned() -> None:
    pairs = halves()
    for seed in range(30):
        image, labels = augment(*pairs[seed % 6], recipe(1, crop=(32, 48)), np.random.default_rng(seed))
        assert (image.shape, labels.shape) == ((32, 48, 3), (32, 48))
        bright = image.mean(2)
        if (labels == 1).sum() > 50 and (labels == 0).sum() > 50:
            assert bright[labels == 1].mean() > bright[labels == 0].mean() + 50
    first, again = (augment(*pairs[0], recipe(1), np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first[0], again[0])


def test_half_of_the_crops_are_flipped() -> None:
    columns, keys = np.repeat(np.arange(60, dtype=np.uint8)[None], 40, 0), recipe(1, crop=(16, 24), scale=(1.0, 1.0))
    image = cv2.merge([columns] * 3)
    crops = (augment(image, columns, keys, np.random.default_rng(seed))[1] for seed in range(60))
    assert 18 < sum(labels[0, 0] > labels[0, -1] for labels in crops) < 42


def test_objects_have_all_sizes_within_the_scale() -> None:
    thing = np.zeros((60, 60), np.uint8)
    thing[20:40, 20:40] = 1

    pairs = Pairs([cv2.merge([thing] * 3)], [thing])

    def sides(scale: tuple[float, float]) -> list[float]:
        keys = recipe(10, batch=40, size=(160, 160), crop=(160, 160), scale=scale)
        return [float((labels == 1).sum()) ** 0.5 for labels in make_batch(pairs, keys, CLASSES, step=0)[1]]

    assert sides((1.0, 1.0)) == pytest.approx([20] * 40, abs=1)
    enlarged = sides((0.5, 2.0))
    assert 9 < min(enlarged) < 13
    assert 32 < max(enlarged) < 42


def test_objects_have_the_aspect_ratio_of_the_networks_input() -> None:
    thing = np.zeros((60, 60), np.uint8)
    thing[20:40, 20:40] = 1
    keys = recipe(10, batch=40, size=(80, 160), crop=(160, 240), scale=(1.0, 1.0))
    for labels in make_batch(Pairs([cv2.merge([thing] * 3)], [thing]), keys, CLASSES, step=0)[1]:
        assert float((labels == 1).sum()) == pytest.approx(20 * 40, rel=0.1)


def test_colours_vary() -> None:
    image, labels = np.full((32, 48, 3), (40, 50, 200), np.uint8), np.zeros((32, 48), np.uint8)
    keys = recipe(1, crop=(16, 24), scale=(1.0, 1.0))
    crops = (augment(image, labels, keys, np.random.default_rng(seed))[0] for seed in range(40))
    pixels = [crop[8:9, 12:13] for crop in crops]
    hue, saturation, value = np.concatenate([cv2.cvtColor(one, cv2.COLOR_BGR2HSV)[0] for one in pixels]).T.astype(int)
    assert np.ptp((hue + 90) % 180) > 8  # red lies on both sides of 0
    assert np.ptp(saturation) > 60
    assert np.ptp(value) > 30


def test_half_of_the_skies_are_repainted_and_nothing_else() -> None:
    """Colour jitter keeps a grey image grey, so blue pixels were repainted."""
    truth = np.zeros((64, 96), np.uint8)
    truth[32:] = 1
    pairs, blue = Pairs([np.full((64, 96, 3), 120, np.uint8)] * 4, [truth] * 4), list[float]()
    for step in range(20):
        images, labels = make_batch(pairs, recipe(20, sky=0, scale=(1.0, 1.0)), CLASSES, step=step)
        for image, crop in zip(images.numpy().astype(int), labels.numpy(), strict=True):
            difference = image[..., 0] - image[..., 2]
            inside, outside = (cv2.erode((crop == label).astype(np.uint8), np.ones((15, 15))) > 0 for label in (0, 1))
            blue += [difference[inside].mean()] if inside.any() else []
            assert abs(difference[outside].mean()) < 2 if outside.any() else True
    assert 0.2 < np.mean(np.array(blue) > 5) < 0.7


def test_labels_are_not_shifted_against_the_image() -> None:
    truth = np.zeros((40, 60), np.uint8)
    truth[23:] = 1
    image, shifts, keys = cv2.merge([truth * 200 + 20] * 3), [], recipe(1, crop=(16, 24), scale=(0.7, 2.0))
    for seed in range(200):
        crop, labels = augment(image, truth, keys, np.random.default_rng(seed))
        if 0 < labels[:, 12].sum() < 16:
            level = crop[..., 1].astype(float)
            middle = (level[labels == 1].mean() + level[labels == 0].mean()) / 2
            shifts.append(float((labels == 1).mean() - (level > middle).mean()) * 16)
    assert len(shifts) > 40
    assert abs(np.mean(shifts)) < 0.15  # pixels; cv2.INTER_NEAREST shifts by a third of one


def test_a_change_of_light_is_smooth_and_keeps_the_labels() -> None:
    grey = np.full((120, 160, 3), 100, np.uint8)
    means, spreads = [], []
    for seed in range(40):
        lit = change_light(grey, np.random.default_rng(seed)).astype(float)
        means.append(lit.mean())
        spreads.append(lit.std())
        assert np.abs(np.diff(lit, axis=0)).max() < 12  # no new edges
    assert min(means) < 70
    assert max(means) > 140
    assert max(spreads) > 15
    pairs = halves()
    plain, changed = (make_batch(pairs, recipe(10, light=share), CLASSES, step=3) for share in (0.0, 1.0))
    assert not torch.equal(plain[0], changed[0])
    assert (plain[1][0] == changed[1][0]).all()


def test_classes_are_pasted_in_place_with_their_labels() -> None:
    target = np.full((20, 30, 3), 40, np.uint8), np.zeros((20, 30), np.uint8)
    source = np.full((20, 30, 3), 200, np.uint8), np.zeros((20, 30), np.uint8)
    source[1][5:15, 3:9], source[1][:, 20:] = 1, 2
    seen = set()
    for seed in range(40):
        image, labels = paste_classes(target, source, [1, 2], np.random.default_rng(seed))
        pasted = frozenset(np.unique(labels).tolist()) - {0}
        seen.add(pasted)
        mask = np.isin(source[1], list(pasted))
        np.testing.assert_array_equal(labels, np.where(mask, source[1], 0))
        inside = cv2.erode(mask.astype(np.uint8), np.ones((7, 7))) > 0
        outside = cv2.dilate(mask.astype(np.uint8), np.ones((7, 7))) == 0
        assert (image[inside] == 200).all()
        assert (image[outside] == 40).all()
    assert seen == {frozenset(), frozenset({1}), frozenset({2}), frozenset({1, 2})}
    assert (target[0] == 40).all()


def test_each_repainted_class_keeps_its_paint_or_gets_one_of_two() -> None:
    image = np.full((40, 300, 3), 120, np.uint8)
    labels = np.repeat(np.arange(3, dtype=np.uint8), 100)[None].repeat(40, 0)
    unchanged, different, brightness = 0, 0, []
    for seed in range(60):
        changed = repaint_classes(image, labels, [0, 2], np.random.default_rng(seed))
        left, middle, right = (changed[:, start + 10 : start + 90] for start in (0, 100, 200))
        assert (middle == 120).all()
        unchanged += bool((left == 120).all())
        different += bool(abs(left.mean() - right.mean()) > 10)
        brightness.append(left.mean() / 120)
    assert 10 < unchanged < 30  # a third
    assert different > 30
    assert min(brightness) < 0.7
    assert max(brightness) > 1.3


def test_a_share_of_the_crops_is_repainted_without_changing_labels() -> None:
    thing = np.zeros((64, 96), np.uint8)
    thing[:, 46:50] = 1
    image = np.full((64, 96, 3), 30, np.uint8)
    image[thing == 1] = 230
    pairs, shares = Pairs([image] * 4, [thing] * 4), {}
    for share in (0.2, 0.9):
        changed = []
        for step in range(40):
            plain, mixed = (
                make_batch(pairs, recipe(10, batch=4, **keys), CLASSES, step=step)
                for keys in ({}, {"repaint": {"classes": [CLASSES.names[1]], "share": share}})
            )
            assert torch.equal(plain[1], mixed[1])
            changed += (plain[0] != mixed[0]).flatten(1).any(1).tolist()
        shares[share] = np.mean(changed)
    assert 0 < 2 * shares[0.2] < shares[0.9]


def test_a_share_of_the_crops_gets_classes_of_another() -> None:
    """In images of one class each, other classes come from pasting; only listed classes are pasted."""
    label_maps = [np.full((64, 96), label, np.uint8) for label in (0, 0, 0, 1, 2)]
    pairs = Pairs([np.full((64, 96, 3), 90, np.uint8)] * 5, label_maps)
    shares = {}
    for share in (0.2, 0.9):
        pasted = []
        for step in range(60):
            plain, mixed = (
                make_batch(pairs, recipe(10, batch=4, paste=keys), CLASSES, step=step)[1]
                for keys in (None, {"classes": ["green"], "share": share})
            )
            changed = plain != mixed
            assert set(mixed[changed].tolist()) <= {CLASSES.names.index("green")}
            pasted += changed.flatten(1).any(1).tolist()
        shares[share] = np.mean(pasted)
    assert 0 < 2 * shares[0.2] < shares[0.9]


def test_pixels_outside_the_image_are_void() -> None:
    _, labels = augment(*halves()[0], recipe(1, crop=(300, 400), scale=(1.0, 1.0)), np.random.default_rng(0))
    assert (labels == VOID).mean() > 0.9


def test_rotation_turns_image_and_labels_by_the_same_angle() -> None:
    truth = np.zeros((120, 160), np.uint8)
    truth[:, 80:] = 1
    image, labels = rotate_image(cv2.merge([truth * 200 + 20] * 3), truth, 10)
    assert {0, 1, VOID} == set(np.unique(labels).tolist())
    top, middle, bottom = (int(np.flatnonzero(labels[row] == 1)[0]) for row in (10, 60, 109))
    assert middle == pytest.approx(80, abs=1)
    assert (top - bottom) / 99 == pytest.approx(-np.tan(np.radians(10)), abs=0.02)  # anticlockwise: the top moves left
    seen = labels != VOID
    assert np.mean((image[..., 0] > 120)[seen] == labels[seen]) > 0.995


def test_crops_are_rotated() -> None:
    """Only rotated crops of large images contain pixels from outside, which are VOID."""
    pairs = Pairs([np.zeros((64, 96, 3), np.uint8)] * 4, [np.zeros((64, 96), np.uint8)] * 4)
    upright, rotated_crops = (
        sum(
            int((make_batch(pairs, recipe(10, rotate=angle, scale=(1.3, 1.3)), CLASSES, step=step)[1] == VOID).sum())
            for step in range(10)
        )
        for angle in (0.0, 20.0)
    )
    assert upright == 0 < rotated_crops


def batch_of_fields(step: int, **keys: Any) -> tuple[torch.Tensor, torch.Tensor]:
    classes = CAMVID if keys.get("synth") else CLASSES
    return make_batch(coloured_fields(), recipe(10, **keys), classes, step=step)


@pytest.mark.parametrize("synth", [0.0, 0.5])
def test_a_batch_depends_on_its_step_alone(synth: float) -> None:
    keys = {"synth": synth, "batch": 3}
    in_order = list(iterate_batches(coloured_fields(), recipe(4, **keys), CAMVID, first=0))
    for step in (3, 1):
        for one, other in zip(in_order[step], batch_of_fields(step, **keys), strict=True):
            assert torch.equal(one, other)
    assert not torch.equal(in_order[1][0], in_order[2][0])


def test_an_error_in_the_producer_thread_is_raised() -> None:
    short = Pairs([np.zeros((4, 4, 3), np.uint8)], [np.zeros((5, 5, 1), np.uint8)])
    with pytest.raises(ValueError, match="unpack"):
        next(iter(iterate_batches(short, recipe(2), CLASSES, first=0)))


def test_a_share_of_the_crops_is_synthetic() -> None:
    grey = Pairs([np.full((64, 96, 3), 90, np.uint8)] * 4, [np.full((64, 96), 7, np.uint8)] * 4)
    for share, least, most in ((0.0, 0, 0), (0.25, 5, 18), (1.0, 40, 40)):
        synthetic = 0
        for step in range(10):
            _, labels = make_batch(grey, recipe(10, synth=share, batch=4), CAMVID, step=step)
            synthetic += sum(not {7, VOID}.issuperset(one.unique().tolist()) for one in labels)
        assert least <= synthetic <= most


def test_synthetic_labels_match_classes_by_name() -> None:
    generators = [np.random.default_rng(3) for _ in range(2)]
    image, labels = draw_synthetic((64, 96), recipe(10), CAMVID, step=5, rng=generators[0])
    assert (image.shape, labels.shape) == ((64, 96, 3), (64, 96))
    names = ("road", "ghost", "sky")
    _, fewer = draw_synthetic((64, 96), recipe(10), Classes(names, ((0, 0, 0),) * 3), step=5, rng=generators[1])
    assert {"road", "sky"} <= {CAMVID.names[label] for label in np.unique(labels)}
    for name, label in (("road", 0), ("sky", 2)):
        np.testing.assert_array_equal(fewer == label, labels == CAMVID.index(name))
    assert (fewer == VOID).sum() == np.isin(labels, [CAMVID.index("road"), CAMVID.index("sky")], invert=True).sum()
    with pytest.raises(ConfigError, match=r"synth://road draws sky, .*; none of them is among the classes"):
        synth_label_table(CLASSES)
