"""Tests of the training loop on networks of two layers."""

from __future__ import annotations

import json
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from stream_seg.datasets.labelled import Pairs
from stream_seg.errors import ConfigError, NetworkError, OutputError
from stream_seg.training.checkpoint import Run, save_checkpoint
from stream_seg.training.history import draw_samples
from stream_seg.training.loop import learning_rate, train, update_average
from stream_seg.training.losses import average_scales
from stream_seg.training.recipe import Distil, Recipe
from stream_seg.training.setup import Job, split_held_back
from stream_seg.types import Classes
from stream_seg.zoo.weights.input_spec import InputSpec, Normalise
from tests.support.coloured_fields import NAMES, coloured_fields

SPEC = InputSpec((0.4, 0.4, 0.4), (0.3, 0.3, 0.3))
CLASSES = Classes(tuple(NAMES), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))


class Tiny(nn.Module):
    """Two convolutions with an auxiliary output while training, and dropout, which is random at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.1)
        self.score = nn.Conv2d(8, 3, 1)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        scores: Tensor = self.score(self.drop(self.norm(self.down(image)).relu()))
        return (scores, scores[..., ::4, ::4]) if self.training else scores


def recipe(steps: int, **keys: Any) -> Recipe:
    defaults = {"network": "road", "data": Path("unused"), "mean": SPEC.mean, "std": SPEC.std, "size": (64, 96)}
    defaults |= {"crop": (32, 48), "batch": 2, "steps": steps, "warm_up": 2, "learning_rate": 0.02, "device": "cpu"}
    return Recipe(**{**defaults, **keys})  # type: ignore[arg-type]


def make_job(steps: int, *, with_val: bool = False, teacher: nn.Module | None = None, **keys: Any) -> Job:
    torch.manual_seed(0)
    pairs, val = split_held_back(coloured_fields(12), 0.34, where="test") if with_val else (coloured_fields(), None)
    return Job(recipe(steps, **keys), Tiny(), SPEC, pairs, CLASSES, val, None if teacher is None else (teacher, SPEC))


class Killed(Exception):  # noqa: N818 - stands for a kill, not an error
    pass


def kill_at(step: int) -> Any:
    """Return an on_step callback that raises Killed after a step."""

    def on_step(done: int, _figures: dict[str, Any]) -> None:
        if done == step:
            raise Killed

    return on_step


def pixel_accuracy(net: nn.Module) -> float:
    """Return the share of the coloured fields' pixels that a network labels correctly."""
    pairs = coloured_fields(seed=9)
    with torch.no_grad():
        labels = net.eval()(Normalise(SPEC)(torch.from_numpy(np.stack(pairs.images)))).argmax(1).numpy()
    truth = np.stack(pairs.labels)[:, ::2, ::2]
    return float((labels == truth)[truth != 255].mean())


@pytest.mark.parametrize(
    "keys",
    [{}, {"loss": "ohem"}, {"loss": "lovasz"}, {"schedule": "one_cycle"}, {"schedule": "hold"}],
    ids=lambda keys: str(keys),
)
def test_training_learns(keys: dict[str, Any], tmp_path: Path) -> None:
    job = make_job(80, **keys)
    assert pixel_accuracy(job.net) < 0.8
    run = train(job, out=tmp_path)
    run.net.load_state_dict(run.average)
    assert pixel_accuracy(run.net) > 0.9


def assert_same_weights(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.timeout(300)
def test_a_run_that_was_killed_ends_in_the_same_weights(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"save_every": 4, "validate_every": 3, "with_val": True}
    whole = train(make_job(10, **keys), out=tmp_path / "whole")
    with pytest.raises(Killed):
        train(make_job(10, **keys), out=tmp_path / "broken", on_step=kill_at(6))
    resumed = train(make_job(10, **keys), out=tmp_path / "broken", resume=True)
    assert_same_weights(whole.average, resumed.average)
    assert_same_weights(whole.net.state_dict(), resumed.net.state_dict())
    assert (whole.best, whole.miou) == (resumed.best, resumed.miou)
    for name in ("last.pt", "best.pt"):
        states = [torch.load(tmp_path / run / name, weights_only=True) for run in ("whole", "broken")]
        assert_same_weights(states[0]["average"], states[1]["average"])
    logs = [(tmp_path / run / "log.jsonl").read_text() for run in ("whole", "broken")]
    assert logs[0] == logs[1]
    steps = [json.loads(line)["step"] for line in logs[0].splitlines()]
    assert steps == [1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9, 10, 10]


def test_a_resumed_run_needs_the_optimiser_state(tmp_path: Path) -> None:
    whole = train(make_job(10), out=tmp_path / "whole")
    with pytest.raises(Killed):
        train(make_job(10, save_every=4), out=tmp_path / "broken", on_step=kill_at(6))
    state = torch.load(tmp_path / "broken" / "last.pt", weights_only=True)
    state["optimiser"]["state"] = {}
    torch.save(state, tmp_path / "broken" / "last.pt")
    resumed = train(make_job(10, save_every=4), out=tmp_path / "broken", resume=True)
    with pytest.raises(AssertionError):
        assert_same_weights(whole.average, resumed.average)


def test_an_old_checkpoint_without_a_recipe_resumes(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(make_job(10, save_every=4), out=tmp_path, on_step=kill_at(5))
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    torch.save({key: state[key] for key in ("net", "average", "optimiser", "step")}, tmp_path / "last.pt")
    assert train(make_job(10, save_every=4), out=tmp_path, resume=True).step == 10


@pytest.mark.parametrize("numbers", [900, 2000, 100_000])
def test_a_full_disk_keeps_the_previous_checkpoint(numbers: int, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"net": torch.zeros(3)})
    whole, before = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(OutputError, match=r"^cannot write .*last\.pt: the file is larger than this system allows$"):
            save_checkpoint(path, {"net": torch.zeros(numbers), "average": torch.zeros(numbers)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_does_not_resume_with_another_recipe(tmp_path: Path) -> None:
    train(make_job(2), out=tmp_path)
    with pytest.raises(ConfigError, match=r"last\.pt: the recipe has another steps, seed now; resume with the recipe"):
        train(make_job(3, seed=2), out=tmp_path, resume=True)
    train(make_job(2, save_every=7, data=Path("elsewhere")), out=tmp_path, resume=True)
    torch.save({"net": {}}, tmp_path / "last.pt")
    with pytest.raises(NetworkError, match="not a checkpoint to resume from: it lacks average, optimiser, step"):
        train(make_job(2), out=tmp_path, resume=True)


def test_the_best_weights_are_saved_and_samples_drawn(tmp_path: Path) -> None:
    run = train(make_job(60, with_val=True, validate_every=20), out=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    scores = [line["miou"] for line in lines if "miou" in line]
    assert len(scores) == 3
    assert scores[-1] > 0.8
    assert run.best == max(scores)
    checkpoint = torch.load(tmp_path / "best.pt", weights_only=True)
    assert checkpoint["best"] == run.best
    assert checkpoint["step"] == 20 * (1 + scores.index(max(scores)))
    for name in ("curves.png", "samples.png"):
        assert (tmp_path / name).stat().st_size > 2000


@pytest.mark.parametrize(("size", "height"), [((1, 2000), 1), ((2000, 1), 640), ((64, 96), 213)])
def test_samples_are_drawn_of_images_of_any_shape(size: tuple[int, int], height: int, tmp_path: Path) -> None:
    pairs = Pairs([np.zeros((*size, 3), np.uint8)] * 2, [np.zeros(size, np.uint8)] * 2)
    draw_samples(tmp_path / "samples.png", lambda _image, full: np.ones(full, np.uint8), pairs, CLASSES)
    samples = cv2.imread(str(tmp_path / "samples.png"))
    assert samples is not None
    assert samples.shape == (2 * height, 3 * 320, 3)


def test_a_teacher_outweighs_wrong_labels_by_its_share(tmp_path: Path) -> None:
    teacher = train(make_job(80), out=tmp_path / "teacher").net.eval()
    for share, least, most in ((0.02, 0.0, 0.5), (0.98, 0.9, 1.0)):
        distil = Distil(network="road", weights="unused", share=share)
        job = make_job(80, teacher=teacher, distil=distil)
        wrong = [np.where(labels == 255, 255, (labels + 1) % 3).astype(np.uint8) for labels in job.pairs.labels]
        job.pairs.labels[:] = wrong
        run = train(job, out=tmp_path / str(share))
        run.net.load_state_dict(run.average)
        assert least <= pixel_accuracy(run.net) <= most


def test_a_teacher_sees_crops_at_its_scales(tmp_path: Path) -> None:
    teacher, seen = make_job(1).net.eval(), list[tuple[int, ...]]()
    teacher.register_forward_pre_hook(lambda _net, images: seen.append(tuple(images[0].shape[-2:])))
    distil = Distil(network="road", weights="unused", scales=(1.0, 1.5))
    train(make_job(2, teacher=teacher, distil=distil), out=tmp_path)
    height, width = recipe(1).crop
    assert seen == 2 * [(height, width), (height * 3 // 2, width * 3 // 2)]


def test_scales_are_averaged_as_probabilities() -> None:
    def net(images: torch.Tensor) -> torch.Tensor:
        """Return certain scores for a small image and undecided ones for a large one."""
        height, width = (side // 2 for side in images.shape[-2:])
        return torch.tensor([20.0 if height == 4 else 0.0, 0.0]).reshape(1, 2, 1, 1).expand(1, 2, height, width)

    images = torch.zeros(1, 3, 8, 12)
    once, twice = (average_scales(net, images, scales).exp() for scales in ([1.0], [1.0, 2.0]))
    assert once.shape == twice.shape == (1, 2, 4, 6)
    assert once[0, 0].mean().item() == pytest.approx(1)
    assert twice[0, :, 2, 3].tolist() == pytest.approx([0.75, 0.25])


def test_a_loss_that_is_nan_ends_the_run(tmp_path: Path) -> None:
    job = make_job(3)
    with torch.no_grad():
        job.net.score.bias.fill_(float("nan"))  # type: ignore[union-attr, operator]
    with pytest.raises(NetworkError, match="step 0: the loss is nan; try a lower learning_rate"):
        train(job, out=tmp_path)


def test_a_recipe_for_cuda_on_a_machine_without_it(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ConfigError, match="device: cuda: torch has no CUDA device"):
        train(make_job(1, device="cuda"), out=tmp_path)


def test_schedules() -> None:
    def rates(**keys: Any) -> list[float]:
        return [learning_rate(step, recipe(100, learning_rate=1.0, warm_up=10, **keys)) for step in range(100)]

    poly, hold, cycle = rates(), rates(schedule="hold"), rates(schedule="one_cycle")
    assert poly[:2] == hold[:2] == pytest.approx([0.1, 0.2])
    assert poly[50] == pytest.approx(0.5**0.9)
    assert hold[9:66] == [1.0] * 57
    assert hold[-1] == pytest.approx(0.03)
    assert cycle[0] == pytest.approx(1 / 25)
    assert cycle[30] == max(cycle) == pytest.approx(1.0)
    assert cycle[-1] < 0.002
    assert cycle == pytest.approx(one_cycle_of_torch(100), abs=0.05)  # its peak is a step earlier


def one_cycle_of_torch(steps: int) -> list[float]:
    optimiser = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=1.0, total_steps=steps)
    rates = []
    for _ in range(steps):
        rates.append(float(optimiser.param_groups[0]["lr"]))
        optimiser.step()
        schedule.step()
    return rates


def test_consecutive_images_are_held_back() -> None:
    training, val = split_held_back(coloured_fields(20), 0.4, where="test")
    images = coloured_fields(20).images
    places = [next(i for i, one in enumerate(images) if np.array_equal(one, image)) for image in val.images]
    assert places == [3, 4, 8, 9, 13, 14, 18, 19]
    assert len(training) == 12
    for count, share, expected in ((20, 0.2, 4), (24, 0.15, 4), (4, 0.1, 1), (12, 0.15, 2), (3, 0.9, 2), (30, 0.5, 15)):
        training, val = split_held_back(coloured_fields(count), share, where="test")
        assert (len(training), len(val)) == (count - expected, expected)
    with pytest.raises(ConfigError, match=r"test: held_back: 0\.1 needs at least two images"):
        split_held_back(coloured_fields(1), 0.1, where="test")


def test_the_average_lags_the_weights(tmp_path: Path) -> None:
    for ema, lags in ((0.0, False), (0.9, True)):
        run = train(make_job(4, ema=ema), out=tmp_path)
        assert torch.equal(run.average["score.weight"], run.net.state_dict()["score.weight"]) != lags
    average, net = {name: torch.zeros_like(value) for name, value in run.average.items()}, run.net
    update_average(average, net, decay=0.75)
    torch.testing.assert_close(average["score.weight"], net.state_dict()["score.weight"] / 4)
    assert average["norm.num_batches_tracked"] == 4  # counters are copied


@pytest.mark.parametrize("keys", [{"auxiliary": 0.0}, {"balance": 0.0}, {"loss": "ohem"}, {"loss": "lovasz"}], ids=str)
def test_every_key_of_the_loss_has_an_effect(keys: dict[str, Any], tmp_path: Path) -> None:
    default, other = (train(make_job(2, **part), out=tmp_path).net.state_dict() for part in ({}, keys))
    assert not torch.equal(default["down.weight"], other["down.weight"])


def test_gradients_are_clipped(tmp_path: Path) -> None:
    job, norms = make_job(3), list[float]()
    with torch.no_grad():
        job.net.score.weight *= 1000  # type: ignore[union-attr, operator]

    def record(optimiser: torch.optim.Optimizer, *_: object) -> None:
        every = [p.grad for group in optimiser.param_groups for p in group["params"]]
        norms.append(float(nn.utils.get_total_norm(every)))

    hook = register_optimizer_step_pre_hook(record)
    try:
        train(job, out=tmp_path)
    finally:
        hook.remove()
    assert norms == pytest.approx([5.0] * 3, rel=1e-3)


def test_weight_decay_excludes_biases_and_normalisation(tmp_path: Path) -> None:
    run = train(make_job(1, weight_decay=0.3), out=tmp_path)
    decay = {id(p): group["weight_decay"] for group in run.optimiser.param_groups for p in group["params"]}
    decays = {name for name, p in run.net.named_parameters() if decay[id(p)] == 0.3}
    assert decays == {"down.weight", "score.weight"}
    assert sorted(decay.values()) == [0, 0, 0, 0, 0.3, 0.3]


def test_each_step_samples_another_pixel_of_each_cell(tmp_path: Path) -> None:
    """With one row of pixels in a crop of void, only steps that sample the upper half of a cell have a loss."""
    job, losses = make_job(16, crop=(8, 8), scale=(0.5, 1.0)), list[float]()
    job.pairs.images[:] = [image[:1] for image in job.pairs.images]
    job.pairs.labels[:] = [np.zeros((1, 96), np.uint8) for _ in job.pairs.labels]
    train(job, out=tmp_path, on_step=lambda _step, figures: losses.append(float(figures["loss"])))
    assert 3 < sum(loss > 0 for loss in losses) < 13


@pytest.mark.parametrize("auxiliary", [False, True])
def test_scores_are_interpolated_at_the_sampled_pixel(auxiliary: bool, tmp_path: Path) -> None:
    """Between a cell with the right label and one with a wrong label, the loss depends on the distance to both."""

    class Edge(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scores = nn.Parameter(torch.tensor([[2.0, -2.0], [-2.0, 2.0], [-9.0, -9.0]]).view(1, 3, 1, 2))

        def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            scores = self.scores.expand(len(image), -1, -1, -1)
            return (torch.zeros_like(scores), scores) if auxiliary else scores

    job, losses = make_job(16, crop=(8, 8), scale=(1.0, 1.0), learning_rate=1e-9), list[float]()
    job.pairs.labels[:] = [np.zeros_like(labels) for labels in job.pairs.labels]
    job = replace(job, net=Edge())
    train(job, out=tmp_path, on_step=lambda _step, figures: losses.append(round(float(figures["loss"]), 3)))
    assert len(set(losses)) == 4  # one per column of a cell


def test_training_computes_in_bf16_with_the_channels_last(tmp_path: Path) -> None:
    job, outputs = make_job(1), list[Tensor]()
    job.net.down.register_forward_hook(lambda _net, _inputs, output: outputs.append(output))  # type: ignore[union-attr]
    train(job, out=tmp_path)
    (output,) = outputs
    assert output.dtype == torch.bfloat16
    assert output.is_contiguous(memory_format=torch.channels_last)


def test_every_step_is_reported(tmp_path: Path) -> None:
    reports: list[tuple[int, float]] = []
    run = train(make_job(3), out=tmp_path, on_step=lambda step, figures: reports.append((step, float(figures["loss"]))))
    assert isinstance(run, Run)
    assert [step for step, _ in reports] == [1, 2, 3]
    assert all(np.isfinite(loss) for _, loss in reports)
