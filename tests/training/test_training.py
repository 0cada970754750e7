from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stream_seg.dataset import VOID, Pairs
from stream_seg.training.augment import augmented
from stream_seg.training.loop import class_weights, loss_of, sampled, train
from stream_seg.training.recipe import Recipe


class Tiny(nn.Module):
    """Two convolutions with the outputs that the loop expects."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.score = nn.Conv2d(8, 2, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.score(self.down(image).relu())
        return scores, scores[..., ::4, ::4]


def halves(count: int = 6) -> Pairs:
    """Pictures that are dark on one side and bright on the other; bright is class 1."""
    images, labels = [], []
    for number in range(count):
        truth = np.zeros((40, 60), np.uint8)
        truth[:, 10 + 7 * number :] = 1
        images.append(cv2.merge([truth * 200 + 20] * 3))
        labels.append(truth)
    return Pairs(images, labels)


def recipe(steps: int) -> Recipe:
    return Recipe(
        network="road",
        data=Path("unused"),
        mean=(0.4, 0.4, 0.4),
        std=(0.3, 0.3, 0.3),
        crop=(32, 48),
        batch=2,
        steps=steps,
        warm_up=2,
        learning_rate=0.02,
    )


def trained(out: Path, net: Tiny, *, steps: int, resume: bool = False) -> dict[str, Tensor]:
    train(recipe(steps), net, halves(), classes=2, out=out, resume=resume)
    state: dict[str, Tensor] = torch.load(out / "last.pt", weights_only=True)["average"]
    return state


def test_training_learns(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Tiny()
    net.load_state_dict(trained(tmp_path, net, steps=60))
    pairs = halves()
    image = (torch.from_numpy(np.stack(pairs.images)).float() / 255 - 0.4) / 0.3
    predicted = net(image.permute(0, 3, 1, 2))[0].argmax(1).numpy()
    assert (predicted == np.stack(pairs.labels)[:, ::2, ::2]).mean() > 0.9


def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_seg.training.loop.SAVE_EVERY", 4)
    torch.manual_seed(0)
    whole = trained(tmp_path / "whole", Tiny(), steps=10)
    torch.manual_seed(0)
    net = Tiny()
    real = torch.optim.AdamW.step
    steps = iter(range(6))

    def killed(*arguments: object, **keys: object) -> object:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return real(*arguments, **keys)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.optim.AdamW, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "broken", net, steps=10)
    monkeypatch.setattr(torch.optim.AdamW, "step", real)
    resumed = trained(tmp_path / "broken", Tiny(), steps=10, resume=True)
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value)


def test_augmentation_keeps_picture_and_labels_together() -> None:
    pairs = halves()
    for seed in range(30):
        draw = np.random.default_rng(seed)
        image, labels = augmented(*pairs[seed % 6], draw, crop=(32, 48), scale=(0.5, 2.0))
        assert (image.shape, labels.shape) == ((32, 48, 3), (32, 48))
        bright = image.mean(2)
        if (labels == 1).sum() > 50 and (labels == 0).sum() > 50:
            assert bright[labels == 1].mean() > bright[labels == 0].mean() + 50
    first, again = (augmented(*pairs[0], np.random.default_rng(5), crop=(32, 48), scale=(0.5, 2.0)) for _ in range(2))
    np.testing.assert_array_equal(first[0], again[0])


def test_what_lies_outside_the_picture_is_void() -> None:
    _, labels = augmented(*halves()[0], np.random.default_rng(0), crop=(300, 400), scale=(1.0, 1.0))
    assert (labels == VOID).mean() > 0.9


def test_labels_are_picked_at_the_phase() -> None:
    labels = torch.arange(24).reshape(1, 4, 6)
    assert sampled(labels, (2, 3), np.array([0.0, 0.0])).tolist() == [[[0, 2, 4], [12, 14, 16]]]
    assert sampled(labels, (2, 3), np.array([0.99, 0.5])).tolist() == [[[7, 9, 11], [19, 21, 23]]]
    near_one = np.array([1 - 1e-12, 1 - 1e-12])
    assert sampled(torch.zeros(1, 288, 384), (144, 192), near_one).shape == (1, 144, 192)


def test_void_teaches_nothing() -> None:
    scores = torch.randn(1, 2, 4, 4, requires_grad=True)
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    labels[:, 2:] = VOID
    loss_of(scores, labels, torch.ones(2)).backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    assert scores.grad[:, :, :2].abs().sum() > 0
    assert scores.grad[:, :, 2:].abs().sum() == 0


def test_rare_classes_weigh_more() -> None:
    weights = class_weights([np.repeat(np.uint8([0, 1, 2]), [60, 30, 10])], 3)
    assert weights[0] < weights[1] < weights[2]
