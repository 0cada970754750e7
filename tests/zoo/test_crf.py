"""Tests of the convolutional CRF."""

from __future__ import annotations

from itertools import product
from math import exp

import torch
from torch import Tensor

from stream_seg.zoo.crf import ITERATIONS, WINDOW, ConvCRF


def mean_field(scores: Tensor, image: Tensor) -> Tensor:
    """Compute mean field pixel by pixel, with weights 4 and 3 and widths 5, 0.2 and 1."""
    reach = WINDOW // 2
    _, height, width = scores.shape
    pixels = list(product(range(height), range(width)))
    logits = scores
    for _ in range(ITERATIONS):
        q, logits = logits.softmax(0), scores.clone()
        for y, x in pixels:
            near = [p for p in pixels if p != (y, x) and abs(p[0] - y) <= reach and abs(p[1] - x) <= reach]
            squared = [(v - y) ** 2 + (u - x) ** 2 for v, u in near]
            contrast = [float(((image[:, v, u] - image[:, y, x]) ** 2).sum()) for v, u in near]
            appearance = [exp(-d / (2 * 5.0**2) - c / (2 * 0.2**2)) for d, c in zip(squared, contrast, strict=True)]
            smoothness = [exp(-d / 2) for d in squared]
            for weight, kernel in ((4.0, appearance), (3.0, smoothness)):
                for (v, u), k in zip(near, kernel, strict=True):
                    logits[:, y, x] += weight * k / max(sum(kernel), 1e-6) * q[:, v, u]
    return logits


def test_it_is_mean_field_within_the_window() -> None:
    torch.manual_seed(2)
    scores, image = torch.randn(2, 3, 5, 6), torch.rand(2, 3, 5, 6) * 0.5
    refined = ConvCRF()(scores, image)
    for one, pixels, expected in zip(scores, image, refined, strict=True):
        torch.testing.assert_close(mean_field(one, pixels), expected, atol=1e-4, rtol=1e-4)


def test_noise_is_removed_and_an_edge_of_the_image_is_kept() -> None:
    image = torch.zeros(1, 3, 16, 16)
    image[..., 8:] = 2.0
    truth = image[:, 0] > 1
    labels = truth.clone()
    labels[0, 4, 4] = labels[0, 11, 7] = True  # one in a plain area, one at the edge
    scores = torch.stack([~labels, labels], dim=1).float() * 2
    refined = ConvCRF()(scores, image)
    assert torch.equal(refined.argmax(1).bool(), truth)
