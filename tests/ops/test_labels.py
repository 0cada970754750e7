"""Compare the fused resize and argmax with separate steps in double precision."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from stream_seg.datasets.palettes import CAMVID
from stream_seg.ops.labels import (
    AMBIGUOUS,
    class_shares,
    mark_void,
    resize_labels,
    unanimous_labels,
    upsampled_argmax,
)

SIZES = {
    "the road network's 2x": ((88, 120), (176, 240)),
    "no change": ((40, 50), (40, 50)),
    "odd": ((31, 47), (101, 73)),
    "smaller": ((90, 121), (35, 22)),
    "much smaller": ((97, 89), (3, 2)),
    "a single pixel": ((1, 1), (5, 7)),
    "to a single pixel": ((6, 9), (1, 1)),
}


def interpolation(outputs: int, inputs: int) -> NDArray[np.float64]:
    """Return the matrix of a bilinear resize with half-pixel centers."""
    position = np.clip((np.arange(outputs) + 0.5) * inputs / outputs - 0.5, 0, inputs - 1)
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(inputs)))


def resize(scores: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.float64]:
    rows, columns = interpolation(size[0], scores.shape[1]), interpolation(size[1], scores.shape[2])
    return np.einsum("yh,chw,xw->cyx", rows, scores.astype(np.float64), columns, optimize=True)


@pytest.mark.parametrize(("source", "size"), SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("classes", [1, 2, 11, 255])
def test_equals_resize_then_argmax(source: tuple[int, int], size: tuple[int, int], classes: int) -> None:
    scores = np.random.default_rng(0).standard_normal((classes, *source)).astype(np.float32)
    plain = resize(scores, size)
    best = np.sort(plain, axis=0)
    clear = best[-1] - best[-2] > 1e-4 if classes > 1 else np.ones(size, bool)
    labels = upsampled_argmax(scores, size)
    assert (labels.dtype, labels.shape) == (np.uint8, size)
    assert clear.mean() > 0.9
    assert np.array_equal(labels[clear], plain.argmax(axis=0)[clear])


@pytest.mark.parametrize(("source", "size"), SIZES.values(), ids=SIZES)
def test_equals_resize_then_argmax_where_neighbors_agree(source: tuple[int, int], size: tuple[int, int]) -> None:
    noise = np.random.default_rng(3).standard_normal((6, *source)).astype(np.float32)
    scores = np.stack([cv2.GaussianBlur(plane, (0, 0), 4) for plane in noise]) * 30
    share = (unanimous_labels(scores) == AMBIGUOUS).mean()
    assert min(source) < 30 or 0.05 < share < 0.5  # pixels inside regions and along outlines
    plain = resize(scores, size)
    best = np.sort(plain, axis=0)
    clear = best[-1] - best[-2] > 1e-4
    assert clear.mean() > 0.99
    assert np.array_equal(upsampled_argmax(scores, size)[clear], plain.argmax(axis=0)[clear])


def test_equals_the_resize_of_torch() -> None:
    torch = pytest.importorskip("torch")
    scores = np.random.default_rng(1).standard_normal((5, 17, 23)).astype(np.float32)
    enlarged = torch.nn.functional.interpolate(torch.from_numpy(scores)[None], (40, 61), mode="bilinear")[0]
    top = enlarged.topk(2, dim=0).values
    clear = (top[0] - top[1] > 1e-4).numpy()
    assert np.array_equal(upsampled_argmax(scores, (40, 61))[clear], enlarged.argmax(0).numpy()[clear])


def test_of_equal_scores_the_first_class_wins() -> None:
    scores = np.zeros((4, 3, 3), np.float32)
    scores[[1, 3]] = 2.0
    assert (upsampled_argmax(scores, (7, 8)) == 1).all()


def test_nan_never_wins() -> None:
    scores = np.zeros((3, 4, 4), np.float32)
    scores[0] = np.nan
    scores[2] = 1.0
    assert (upsampled_argmax(scores, (8, 8)) == 2).all()
    assert (upsampled_argmax(np.full_like(scores, np.nan), (8, 8)) == 0).all()


def test_accepts_scores_that_are_not_contiguous() -> None:
    scores = np.random.default_rng(2).standard_normal((20, 30, 6)).astype(np.float32).transpose(2, 0, 1)
    assert np.array_equal(upsampled_argmax(scores, (40, 60)), upsampled_argmax(scores.copy(order="C"), (40, 60)))


def test_unanimous_where_four_neighbors_agree() -> None:
    scores = np.zeros((2, 3, 4), np.float32)
    scores[1, :, 2:] = 1
    np.testing.assert_array_equal(unanimous_labels(scores), [[0, AMBIGUOUS, 1, 1]] * 3)


@pytest.mark.parametrize("shape", [(3, 4), (0, 3, 4), (256, 3, 4), (3, 0, 4)])
def test_rejects_invalid_scores(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="scores: expected float32"):
        upsampled_argmax(np.zeros(shape, np.float32), (8, 8))
    with pytest.raises(ValueError, match="got float64"):
        upsampled_argmax(np.zeros((2, 3, 4)), (8, 8))


def test_resize_labels_adds_no_class() -> None:
    labels = np.tile(np.array([0, 10, 255], np.uint8), (6, 4))
    assert resize_labels(labels, labels.shape) is labels
    larger = resize_labels(labels, (12, 24))
    assert np.array_equal(larger, labels.repeat(2, 0).repeat(2, 1))
    assert set(np.unique(resize_labels(labels, (7, 31)))) == {0, 10, 255}


def test_class_shares_count_pixels() -> None:
    labels = np.full((10, 10), 255, np.uint8)
    labels[:5] = 3
    labels[5, :7] = 10
    shares = class_shares(labels, CAMVID)
    assert shares.dtype == np.float32
    assert dict(zip(np.flatnonzero(shares).tolist(), shares[shares > 0].tolist(), strict=True)) == pytest.approx(
        {3: 0.5, 10: 0.07}
    )


def test_a_mask_of_any_size_makes_labels_void() -> None:
    mask = np.zeros((4, 6), np.uint8)
    mask[:, 3:] = 255
    labels = mark_void(np.full((8, 12), 7, np.uint8), mask)
    assert (labels[:, :5] == 7).all()
    assert (labels[:, 7:] == 255).all()
