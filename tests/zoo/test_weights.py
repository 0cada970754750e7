"""Tests of reading, matching and checking weights from all kinds of files."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import get_model

from stream_seg.datasets.palettes import DISTINCT, VOC, colour_classes
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.training.setup import class_layers
from stream_seg.types import Classes
from stream_seg.zoo import build_network
from stream_seg.zoo.backbones import VGG16, ResNet, dilate
from stream_seg.zoo.weights.files import read_weights, unwrap_weights
from stream_seg.zoo.weights.input_spec import (
    INPUTS,
    MAX_DEVIATION,
    InputSpec,
    Normalise,
    norm_deviation,
    refuse_misfit,
    refuse_worse,
)
from stream_seg.zoo.weights.load import load_backbone, load_weights
from stream_seg.zoo.weights.source import average_weights, open_weights
from tests.support.coloured_fields import NAMES, coloured_fields

PUBLISHED = {
    "lraspp_mobilenet": "LRASPP_MobileNet_V3_Large_Weights.COCO_WITH_VOC_LABELS_V1",
    "deeplabv3_mobilenet": "DeepLabV3_MobileNet_V3_Large_Weights.DEFAULT",
    "deeplabv3_resnet50": "DeepLabV3_ResNet50_Weights.DEFAULT",
    "fcn_resnet50": "FCN_ResNet50_Weights.DEFAULT",
}
FILES = {
    "lraspp_mobilenet": "lraspp_mobilenet_v3_large-d234d4ea.pth",
    "deeplabv3_mobilenet": "deeplabv3_mobilenet_v3_large-fc3c493d.pth",
    "deeplabv3_resnet50": "deeplabv3_resnet50_coco-cd0a2569.pth",
    "fcn_resnet50": "fcn_resnet50_coco-1167a1af.pth",
}


class Small(nn.Module):
    """A network with names of two levels, a counter, and a layer of as many channels as classes."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.score = nn.Conv2d(8, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        scores: Tensor = self.score(self.body(image))
        return scores


def small_network(seed: int = 7, classes: int = 3) -> Small:
    torch.manual_seed(seed)
    return Small(classes)


def add_prefix(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


WRAPPINGS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "bare": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "best": np.float64(0.7)},
    "model": lambda state: {"model": state, "optimizer": {"state": {}}},
    "model_state": lambda state: {"model_state": state, "cur_itrs": 30000},
    "nested": lambda state: {"model": {"state_dict": state}, "epoch": 3},
    "average preferred": lambda state: {"net": {k: v * 0 for k, v in state.items()}, "average": state},
    "ema": lambda state: {"model": {k: v * 0 for k, v in state.items()}, "model_ema": state},
    "DataParallel": lambda state: {"state_dict": add_prefix("module.", state)},
    "compiled": lambda state: add_prefix("_orig_mod.", state),
    "compiled DataParallel": lambda state: add_prefix("module._orig_mod.", state),
    "lightning": lambda state: {"state_dict": add_prefix("model.", state), "hyper_parameters": {"lr": 0.1}},
    "AveragedModel": lambda state: {"n_averaged": torch.tensor(5), **add_prefix("module.", state)},
    "before num_batches_tracked": lambda state: {k: v for k, v in state.items() if "num_batches" not in k},
}


def read_state(path: Path) -> dict[str, Tensor]:
    return unwrap_weights(read_weights(path), where=str(path))


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_every_wrapper_is_unwrapped(wrapping: str, tmp_path: Path) -> None:
    source, net = small_network(), small_network(1)
    torch.save(WRAPPINGS[wrapping](source.state_dict()), tmp_path / "w.pth")
    load_weights(net, read_state(tmp_path / "w.pth"), classes=3, where="w.pth")
    for name, value in source.state_dict().items():
        assert torch.equal(net.state_dict()[name], value)


def test_safetensors(tmp_path: Path) -> None:
    source, net = small_network(), small_network(1)
    save_file(add_prefix("module.", source.state_dict()), tmp_path / "w.safetensors")
    load_weights(net, read_state(tmp_path / "w.safetensors"), classes=3, where="w")
    assert torch.equal(net.score.weight, source.score.weight)
    (tmp_path / "w.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(NetworkError, match=r"w\.safetensors: not a file of weights, or truncated: "):
        read_weights(tmp_path / "w.safetensors")


def test_the_mean_of_float16_weights_is_exact(tmp_path: Path) -> None:
    """In float16 the mean would round to one of the two. DataParallel's prefix does not make another layer."""
    low, high = torch.full((2, 2), 1.0).half(), torch.full((2, 2), 1.0009765625).half()  # neighbours in float16
    save_file({"a.weight": low}, tmp_path / "low.safetensors")
    save_file({"module.a.weight": high}, tmp_path / "high.safetensors")
    weights = average_weights(
        [open_weights(tmp_path / f"{name}.safetensors", network="road") for name in ("low", "high")]
    )
    assert torch.equal(weights.state["a.weight"], torch.full((2, 2), 1.00048828125))


def test_weights_saved_on_a_gpu(tmp_path: Path) -> None:
    plain = io.BytesIO()
    torch.save(small_network().state_dict(), plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(tmp_path / "gpu.pt", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("data.pkl"):  # contains the device of each storage as text
                assert b"X\x03\0\0\0cpu" in content
                content = content.replace(b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:0")
            new.writestr(name, content)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(tmp_path / "gpu.pt", weights_only=True)
    state = read_state(tmp_path / "gpu.pt")
    assert torch.equal(state["score.weight"], small_network().score.weight)
    assert {value.device.type for value in state.values()} == {"cpu"}


class Payload:
    """An object that runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": small_network().state_dict(), "x": Payload(tmp_path / "ran")}, tmp_path / "evil.pt")
    with pytest.raises(
        NetworkError, match=r"evil\.pt: holds more than tensors, which could be code; save the network's"
    ):
        read_weights(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "evil.pt", weights_only=False)  # unsafe loading runs it
    assert (tmp_path / "ran").exists()


def test_a_whole_model_is_refused(tmp_path: Path) -> None:
    torch.save(small_network(), tmp_path / "model.pt")
    with pytest.raises(NetworkError, match="holds more than tensors"):
        read_weights(tmp_path / "model.pt")


def test_files_that_are_not_weights(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    with pytest.raises(NetworkError, match=r"w\.pt: no such file; expected a file ending in \.pt"):
        read_weights(path)
    torch.save(small_network().state_dict(), path)
    whole = path.read_bytes()
    for content in (b"", b"not weights", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(NetworkError, match=r"w\.pt: not a file of weights") as error:
            read_weights(path)
        assert "\n" not in str(error.value)
    torch.save([1, 2], path)
    with pytest.raises(NetworkError, match="holds a list; expected a dict of tensors by name"):
        read_weights(path)
    torch.save({"epoch": 3, "loss": 0.1}, path)
    with pytest.raises(NetworkError, match="no weights found among its keys epoch, loss; expected tensors by name at"):
        read_state(path)


def test_a_damaged_file_of_torchs_old_format_is_refused(tmp_path: Path) -> None:
    path, source = tmp_path / "old.pth", small_network().state_dict()
    torch.save(source, path, _use_new_zipfile_serialization=False)
    assert torch.equal(read_state(path)["score.bias"], source["score.bias"])
    whole = path.read_bytes()
    key = re.findall(rb"\d{9,}", whole)[0]  # of a storage, unique in the file
    for content in (*(whole[:length] for length in range(0, len(whole), 17)), whole.replace(key, key[::-1], 1)):
        path.write_bytes(content)
        with pytest.raises(NetworkError, match=r"old\.pth: ") as error:
            read_weights(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [{0: torch.ones(1)}, {"model": {"a": torch.ones(1), 1: torch.ones(1)}}, {1: "x"}])
def test_names_must_be_text(content: dict[Any, Any], tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(
        NetworkError, match=r"w\.pt: no weights found among its keys (0|a, 1|1); expected tensors by name"
    ):
        read_state(tmp_path / "w.pt")


@pytest.mark.timeout(20)
def test_a_checkpoint_that_contains_itself_is_refused(tmp_path: Path) -> None:
    content: dict[str, Any] = {"epoch": 3}
    content["model"] = {"net": content}
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(NetworkError, match=r"w\.pt: no weights found within 8 nested wrappers"):
        read_state(tmp_path / "w.pt")


def refuse_state(state: dict[str, Tensor], *, classes: int = 3) -> str:
    """Load a state that does not fit. Check that the network is unchanged and return the error message."""
    net = small_network(1, classes)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(NetworkError) as error:
        load_weights(net, state, classes=classes, where="w.pt")
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    return str(error.value)


def test_loading_is_strict() -> None:
    state = small_network().state_dict()
    lacking = {name: value for name, value in state.items() if not name.startswith("body.1.r")}
    assert "2 of 9 names missing (body.1.running_mean, body.1.running_var)" in refuse_state(lacking)
    assert "1 of 10 names unexpected (extra.weight)" in refuse_state({**state, "extra.weight": torch.ones(1)})
    many = {f"other.{i}": torch.ones(1) for i in range(9)}
    assert "8 of 9 names missing (body.0.weight, body.0.bias, body.1.weight, body.1.bias and 4 more)" in refuse_state(
        many
    )
    assert "9 of 9 names unexpected (other.0, other.1, other.2, other.3 and 5 more)" in refuse_state(many)
    wide = {**state, "body.0.weight": torch.ones(9, 3, 3, 3)}
    assert "1 shapes differ: body.0.weight 9 x 3 x 3 x 3, here 8 x 3 x 3 x 3" in refuse_state(wide)


def test_weights_of_other_classes() -> None:
    state = small_network(classes=21).state_dict()
    message = refuse_state(state, classes=3)
    assert "weights of 21 classes for a network of 3 (score.weight, score.bias)" in message
    assert "use head: new" not in message
    with pytest.raises(NetworkError, match=r"\(score\.weight, score\.bias\); use head: new$"):
        load_weights(small_network(), state, classes=3, where="w", hint="; use head: new")
    net = small_network(1)
    new = net.score.weight.clone()
    load_weights(net, state, classes=3, where="w", skip=["score.weight", "score.bias"])
    assert torch.equal(net.score.weight, new)
    assert torch.equal(net.body[0].weight, state["body.0.weight"])


def test_skipped_layers_stay_new_for_the_same_classes_too() -> None:
    net, state = small_network(1), small_network(7).state_dict()
    new = net.score.weight.clone()
    load_weights(net, state, classes=3, where="w", skip=["score.weight", "score.bias"])
    assert torch.equal(net.score.weight, new)
    assert torch.equal(net.body[0].weight, state["body.0.weight"])


def test_layers_in_multiples_of_the_classes_belong_to_the_head() -> None:
    new = class_layers("dilated", 3)
    assert {name.partition(".")[0] for name in new} == {"score", "context"}
    assert {name.partition(".")[0] for name in class_layers("road", 11)} == {"score", "auxiliary"}
    with torch.device("meta"):
        net, other = build_network("dilated", 3), build_network("dilated", 21)
    load_weights(net, other.state_dict(), classes=3, where="w", skip=new)
    with pytest.raises(NetworkError, match=r"weights of 21 classes for a network of 3 \(score\.weight"):
        load_weights(net, other.state_dict(), classes=3, where="w")


def test_a_new_head_does_not_allow_another_network() -> None:
    state = {**small_network(classes=21).state_dict(), "body.0.weight": torch.ones(8, 4, 3, 3)}
    with pytest.raises(NetworkError, match="shapes differ"):
        load_weights(small_network(), state, classes=3, where="w", skip=["score.weight", "score.bias"])


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of an empty torch.hub cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("network", ["lraspp_mobilenet", "deeplabv3_mobilenet"])
def test_published_weights_load_by_name(network: str, hub: Path) -> None:
    source = build_network(network, 21)
    torch.save(source.net.state_dict(), hub / FILES[network])  # type: ignore[union-attr, operator]
    weights = open_weights(PUBLISHED[network], network=network)
    assert weights.classes == colour_classes(VOC.names, DISTINCT)[0]
    assert weights.spec == INPUTS["imagenet"]
    net = build_network(network, 21)
    load_weights(net, weights.state, classes=21, where="w")
    for name, value in source.state_dict().items():
        assert torch.equal(net.state_dict()[name], value)


CLASSIFIERS = {
    "segnet": ("vgg16_bn", "VGG16_BN_Weights.DEFAULT", "vgg16_bn-6c64b313.pth"),
    "deeplab_v1": ("vgg16", "VGG16_Weights.IMAGENET1K_FEATURES", "vgg16_features-amdegroot-88682ab5.pth"),
    "unet_resnet34": ("resnet34", "ResNet34_Weights.DEFAULT", "resnet34-b627a593.pth"),
}


@pytest.mark.parametrize("network", CLASSIFIERS)
def test_an_encoder_starts_from_a_classifier(network: str, hub: Path) -> None:
    model, name, file = CLASSIFIERS[network]
    source = get_model(model, weights=None)
    head = {"classifier.6.bias": torch.zeros(1)} if "vgg" in model else {"fc.bias": torch.zeros(1)}
    state = {key: value for key, value in source.state_dict().items() if not key.startswith(("classifier.", "fc."))}
    torch.save({**state, **head}, hub / file)
    net, untouched = build_network(network, 3), build_network(network, 3)
    untouched.load_state_dict(net.state_dict())
    spec = load_backbone(net, name, network=network)
    assert spec is not None
    assert spec.mean == pytest.approx((0.485, 0.456, 0.406), abs=0.004)
    encoder = next(part for part in net.modules() if isinstance(part, VGG16 | ResNet)).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        if isinstance(encoder, ResNet):
            source.fc = source.avgpool = nn.Identity()
            ours, theirs = encoder(image)[-1].flatten(1), source.eval()(image)
        else:
            ours, theirs = image, source.eval().features(image)
            dilate(encoder, 1)  # DeepLab's conv5 is atrous
            for block in encoder:
                ours = nn.functional.max_pool2d(block(ours), 2)
    torch.testing.assert_close(ours, theirs)
    last = list(net.state_dict())[-1]
    assert torch.equal(net.state_dict()[last], untouched.state_dict()[last])


def test_a_backbone_that_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(get_model("resnet18", weights=None).state_dict(), path)
    with pytest.raises(NetworkError, match=r"w\.pth, into the resnet34 of unet_resnet34: .*80 of 216 names missing"):
        load_backbone(build_network("unet_resnet34", 3), str(path), network="unet_resnet34")
    with pytest.raises(ConfigError, match=r"backbone: road has no VGG16 or ResNet of torchvision"):
        load_backbone(build_network("road", 3), str(path), network="road")
    with pytest.raises(
        ConfigError, match=r"backbone: 'ResNet18_Weights.DEFAULT' is neither .* torchvision has ResNet34_Wei"
    ):
        load_backbone(build_network("unet_resnet34", 3), "ResNet18_Weights.DEFAULT", network="unet_resnet34")


@pytest.mark.parametrize("network", PUBLISHED)
def test_a_failed_download_names_the_file_to_fetch(network: str, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    with pytest.raises(NetworkError) as error:
        open_weights(PUBLISHED[network], network=network)
    url = f"https://download.pytorch.org/models/{FILES[network]}"
    hint = f"download it to {hub / FILES[network]}"
    assert str(error.value) == f"{url}: cannot be downloaded (Name or service not known); {hint}"


def test_unknown_published_weights() -> None:
    with pytest.raises(ConfigError, match=r"'FCN_ResNet50_Weights.X' is neither .* torchvision has LRASPP_Mob"):
        open_weights("FCN_ResNet50_Weights.X", network="lraspp_mobilenet")
    with pytest.raises(ConfigError, match="torchvision's weights for segnet; torchvision has none"):
        open_weights("FCN_ResNet50_Weights.DEFAULT", network="segnet")


def test_a_sidecar_describes_weights(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(small_network().state_dict(), path)
    assert open_weights(path, network="road").spec is None
    sidecar = {
        "colour": "rgb",
        "scale": 1,
        "mean": [1, 2, 3],
        "std": [4, 5, 6],
        "classes": ["a", "b"],
        "size": [64, 96],
    }
    (tmp_path / "w.pt.yaml").write_text(yaml.safe_dump(sidecar))
    weights = open_weights(path, network="road")
    assert weights.spec == InputSpec((1, 2, 3), (4, 5, 6), "rgb", 1)
    assert weights.classes is not None
    assert (weights.classes.names, weights.size) == (("a", "b"), (64, 96))
    torch.save({"net": small_network().state_dict(), "about": {**sidecar, "network": "road", "prefer": {"a": 2}}}, path)
    assert open_weights(path, network="road").prefer == {"a": 2}
    (tmp_path / "w.pt.yaml").write_text(yaml.safe_dump({**sidecar, "prefer": {"b": 1}}))
    assert open_weights(path, network="road").prefer == {"b": 1}  # the side-car has precedence
    (tmp_path / "w.pt.yaml").write_text(yaml.safe_dump({**sidecar, "size": [96, 128]}))
    assert open_weights(path, network="road").size == (96, 128)
    (tmp_path / "w.pt.yaml").write_text(yaml.safe_dump({k: v for k, v in sidecar.items() if k != "size"}))
    assert open_weights(path, network="road").size == (64, 96)
    (tmp_path / "w.pt.yaml").write_text(yaml.safe_dump(sidecar))
    about = {**sidecar, "network": "road", "scale": 255}
    torch.save({"net": small_network().state_dict(), "about": about}, path)
    with pytest.raises(ConfigError, match=r"w\.pt\.yaml: contradicts .*w\.pt, which states colour rgb, scale 255"):
        open_weights(path, network="road")
    (tmp_path / "w.pt.yaml").unlink()
    assert open_weights(path, network="road").spec == InputSpec((1, 2, 3), (4, 5, 6), "rgb", 255)
    with pytest.raises(NetworkError, match="weights of road, not of segnet"):
        open_weights(path, network="segnet")


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({}, None),  # classes only
        ({"mean": [0, 0, 0], "std": [1, 1, 1]}, None),
        ({"mean": [0.4, 0.4, 0.4]}, "colour, scale, mean and std need both mean and std"),
        ({"colour": "bgr"}, "colour, scale, mean and std need both"),
        ({"layout": "nhwc"}, "layout: describes an ONNX; it is not allowed for weights"),
        ({"onnx": "w.onnx"}, "onnx: describes an ONNX"),
    ],
)
def test_a_sidecar_may_state_classes_only(keys: dict[str, Any], fault: str | None, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(small_network().state_dict(), path)
    (tmp_path / "w.pt.yaml").write_text(yaml.safe_dump({"classes": ["a", "b"], **keys}))
    if fault is None:
        assert (open_weights(path, network="road").spec is not None) == ("mean" in keys)
        return
    with pytest.raises(ConfigError, match=f"w.pt.yaml: {fault}"):
        open_weights(path, network="road")


def test_a_file_name_that_is_too_long() -> None:
    with pytest.raises(NetworkError, match=r"x\.pt: File name too long"):
        open_weights(f"{'x' * 300}.pt", network="road")


def test_images_are_normalised_as_by_torchvision() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 5, 7, 3), np.uint8)
    ours = Normalise(INPUTS["imagenet"])(torch.from_numpy(image))
    rgb = torch.from_numpy(image[..., ::-1].copy()).permute(0, 3, 1, 2) / 255
    from torchvision.transforms.functional import normalize

    theirs = normalize(rgb, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


SPEC = InputSpec((0.4, 0.4, 0.4), (0.3, 0.3, 0.3))


@pytest.fixture(scope="module")
def trained() -> Small:
    """Return a network trained to classify the coloured fields."""
    net, pairs = small_network(), coloured_fields()
    images = Normalise(SPEC)(torch.from_numpy(np.stack(pairs.images)))
    labels = torch.from_numpy(np.stack(pairs.labels)).long()
    optimiser = torch.optim.Adam(net.parameters(), lr=0.05)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net.train()(images), labels, ignore_index=255).backward()
        optimiser.step()
    with torch.no_grad():
        for _ in range(40):
            net(images)  # statistics of the final weights
    return net.eval()


def miou(net: nn.Module, spec: InputSpec) -> float:
    pairs = coloured_fields(seed=4)
    with torch.no_grad():
        labels = net(Normalise(spec)(torch.from_numpy(np.stack(pairs.images)))).argmax(1).numpy()
    truth = np.stack(pairs.labels)
    counted = truth != 255
    iou = [
        ((labels == c) & (truth == c))[counted].sum() / ((labels == c) | (truth == c))[counted].sum() for c in range(3)
    ]
    return float(np.mean(iou))


@pytest.mark.parametrize("wrong", [SPEC.swap_colours(), INPUTS["bytes"]], ids=str)
def test_a_wrong_input_costs_accuracy_and_is_detected(trained: Small, wrong: InputSpec) -> None:
    images = coloured_fields(seed=3).images
    assert miou(trained, SPEC) > 0.9
    refuse_misfit(trained, SPEC, images, where="w")
    assert miou(trained, wrong) < miou(trained, SPEC) - 0.5
    assert miou(trained, INPUTS["imagenet"]) < miou(trained, SPEC) - 0.5
    with pytest.raises(ConfigError, match=r"w: trained on another input than colour rgb, .*; colour bgr"):
        refuse_misfit(trained, wrong, images, where="w")


@pytest.mark.parametrize("wrong", [SPEC.swap_colours(), INPUTS["bytes"]], ids=str)
def test_labels_reveal_a_wrong_input(trained: Small, wrong: InputSpec) -> None:
    fields = coloured_fields(seed=3)
    classes = Classes(tuple(NAMES), ((0, 0, 0),) * 3)
    refuse_worse(trained, SPEC, fields, classes, where="w")
    with pytest.raises(ConfigError, match=r"w: trained on another input than .*mean IoU \d+ on 3 images\); colour"):
        refuse_worse(trained, wrong, fields, classes, where="w")


def test_images_are_checked_at_the_networks_size(trained: Small) -> None:
    fields, seen = coloured_fields(seed=3), set[tuple[int, ...]]()
    classes = Classes(tuple(NAMES), ((0, 0, 0),) * 3)
    hook = trained.body[0].register_forward_pre_hook(lambda _, inputs: seen.add(tuple(inputs[0].shape[-2:])))
    for size in ((32, 40), (128, 100)):
        refuse_misfit(trained, SPEC, fields.images, where="w", size=size)
        refuse_worse(trained, SPEC, fields, classes, where="w", size=size)
        with pytest.raises(ConfigError, match="trained on another input"):
            refuse_misfit(trained, SPEC.swap_colours(), fields.images, where="w", size=size)
        with pytest.raises(ConfigError, match="mean IoU"):
            refuse_worse(trained, SPEC.swap_colours(), fields, classes, where="w", size=size)
        assert seen == {size}
        seen.clear()
    hook.remove()


def test_without_images_or_batch_norm_nothing_is_checked(trained: Small) -> None:
    refuse_misfit(trained, SPEC.swap_colours(), [], where="w")
    refuse_misfit(nn.Conv2d(3, 3, 1), SPEC.swap_colours(), coloured_fields().images, where="w")


def test_the_deviation_from_batch_norm_statistics(trained: Small) -> None:
    images = coloured_fields(seed=3).images
    right = norm_deviation(trained, SPEC, images)
    assert right < 2 * MAX_DEVIATION
    assert norm_deviation(trained, replace(SPEC, scale=1.0), images) > 50
    assert not trained.training
