"""Weights as one finds them: every wrapping, every prefix, and what is refused; with what it says."""

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

from stream_seg.datasets.palettes import VOC
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.training.setup import class_layers
from stream_seg.types import Classes
from stream_seg.zoo import built
from stream_seg.zoo.backbones import VGG16, ResNet, dilate
from stream_seg.zoo.weights.backbone import load_backbone
from stream_seg.zoo.weights.check import FAR, INPUTS, refuse_misfit, refuse_worse, strangeness, turned
from stream_seg.zoo.weights.files import read_weights, unwrapped
from stream_seg.zoo.weights.fit import fit
from stream_seg.zoo.weights.normalise import InputSpec, Normalise
from stream_seg.zoo.weights.source import averaged, open_weights
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
    """Names of two levels, a counter, and a layer as wide as there are classes."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.score = nn.Conv2d(8, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        scores: Tensor = self.score(self.body(image))
        return scores


def filled(seed: int = 7, classes: int = 3) -> Small:
    torch.manual_seed(seed)
    return Small(classes)


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


WRAPPINGS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "bare": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "best": np.float64(0.7)},
    "model": lambda state: {"model": state, "optimizer": {"state": {}}},
    "model_state": lambda state: {"model_state": state, "cur_itrs": 30000},
    "nested": lambda state: {"model": {"state_dict": state}, "epoch": 3},
    "an average before its origin": lambda state: {"net": {k: v * 0 for k, v in state.items()}, "average": state},
    "ema": lambda state: {"model": {k: v * 0 for k, v in state.items()}, "model_ema": state},
    "DataParallel": lambda state: {"state_dict": prefixed("module.", state)},
    "compiled": lambda state: prefixed("_orig_mod.", state),
    "compiled DataParallel": lambda state: prefixed("module._orig_mod.", state),
    "lightning": lambda state: {"state_dict": prefixed("model.", state), "hyper_parameters": {"lr": 0.1}},
    "AveragedModel": lambda state: {"n_averaged": torch.tensor(5), **prefixed("module.", state)},
    "before num_batches_tracked": lambda state: {k: v for k, v in state.items() if "num_batches" not in k},
}


def opened(path: Path) -> dict[str, Tensor]:
    return unwrapped(read_weights(path), where=str(path))


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_every_wrapping(wrapping: str, tmp_path: Path) -> None:
    source, net = filled(), filled(1)
    torch.save(WRAPPINGS[wrapping](source.state_dict()), tmp_path / "w.pth")
    fit(net, opened(tmp_path / "w.pth"), classes=3, where="w.pth")
    for name, value in source.state_dict().items():
        assert torch.equal(net.state_dict()[name], value)


def test_safetensors(tmp_path: Path) -> None:
    source, net = filled(), filled(1)
    save_file(prefixed("module.", source.state_dict()), tmp_path / "w.safetensors")
    fit(net, opened(tmp_path / "w.safetensors"), classes=3, where="w")
    assert torch.equal(net.score.weight, source.score.weight)
    (tmp_path / "w.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(NetworkError, match=r"w\.safetensors: not a file of weights, or cut off: "):
        read_weights(tmp_path / "w.safetensors")


def test_the_mean_of_halves_is_rounded_nowhere(tmp_path: Path) -> None:
    """The mean of float16 in float16 would be one of the two; a prefix of DataParallel is no other layer."""
    low, high = torch.full((2, 2), 1.0).half(), torch.full((2, 2), 1.0009765625).half()  # neighbours in float16
    save_file({"a.weight": low}, tmp_path / "low.safetensors")
    save_file({"module.a.weight": high}, tmp_path / "high.safetensors")
    weights = averaged([open_weights(tmp_path / f"{name}.safetensors", network="road") for name in ("low", "high")])
    assert torch.equal(weights.state["a.weight"], torch.full((2, 2), 1.00048828125))


def test_what_was_saved_on_a_gpu(tmp_path: Path) -> None:
    plain = io.BytesIO()
    torch.save(filled().state_dict(), plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(tmp_path / "gpu.pt", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("data.pkl"):  # where each storage was is a text in there
                assert b"X\x03\0\0\0cpu" in content
                content = content.replace(b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:0")
            new.writestr(name, content)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(tmp_path / "gpu.pt", weights_only=True)
    state = opened(tmp_path / "gpu.pt")
    assert torch.equal(state["score.weight"], filled().score.weight)
    assert {value.device.type for value in state.values()} == {"cpu"}


class Payload:
    """What runs a command when it is loaded as pickle wants."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": filled().state_dict(), "x": Payload(tmp_path / "ran")}, tmp_path / "evil.pt")
    with pytest.raises(
        NetworkError, match=r"evil\.pt: holds more than tensors, which could be code; save the network's"
    ):
        read_weights(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "evil.pt", weights_only=False)  # it would have
    assert (tmp_path / "ran").exists()


def test_a_whole_model_is_refused(tmp_path: Path) -> None:
    torch.save(filled(), tmp_path / "model.pt")
    with pytest.raises(NetworkError, match="holds more than tensors"):
        read_weights(tmp_path / "model.pt")


def test_what_is_no_file_of_weights(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    with pytest.raises(NetworkError, match=r"w\.pt: no such file; weights end in \.pt"):
        read_weights(path)
    torch.save(filled().state_dict(), path)
    whole = path.read_bytes()
    for content in (b"", b"no weights at all", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(NetworkError, match=r"w\.pt: not a file of weights") as told:
            read_weights(path)
        assert "\n" not in str(told.value)
    torch.save([1, 2], path)
    with pytest.raises(NetworkError, match="holds a list; names and tensors are expected"):
        read_weights(path)
    torch.save({"epoch": 3, "loss": 0.1}, path)
    with pytest.raises(
        NetworkError, match="no weights found: its keys are epoch, loss; tensors by name are expected at"
    ):
        opened(path)


def test_a_damaged_file_of_torch_s_old_format_is_refused(tmp_path: Path) -> None:
    path, source = tmp_path / "old.pth", filled().state_dict()
    torch.save(source, path, _use_new_zipfile_serialization=False)
    assert torch.equal(opened(path)["score.bias"], source["score.bias"])
    whole = path.read_bytes()
    key = re.findall(rb"\d{9,}", whole)[0]  # of a storage: one that is nowhere else
    for content in (*(whole[:length] for length in range(0, len(whole), 17)), whole.replace(key, key[::-1], 1)):
        path.write_bytes(content)
        with pytest.raises(NetworkError, match=r"old\.pth: ") as told:
            read_weights(path)
        assert "\n" not in str(told.value)


@pytest.mark.parametrize("content", [{0: torch.ones(1)}, {"model": {"a": torch.ones(1), 1: torch.ones(1)}}, {1: "x"}])
def test_names_are_texts(content: dict[Any, Any], tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(NetworkError, match=r"w\.pt: no weights found: its keys are (0|a, 1|1); tensors by name"):
        opened(tmp_path / "w.pt")


@pytest.mark.timeout(20)
def test_a_checkpoint_that_holds_itself_is_refused(tmp_path: Path) -> None:
    content: dict[str, Any] = {"epoch": 3}
    content["model"] = {"net": content}
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(NetworkError, match=r"w\.pt: no weights found in 8 wrappers, one within another"):
        opened(tmp_path / "w.pt")


def refused(state: dict[str, Tensor], *, classes: int = 3) -> str:
    net = filled(1, classes)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(NetworkError) as told:
        fit(net, state, classes=classes, where="w.pt")
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    return str(told.value)


def test_loading_is_strict() -> None:
    state = filled().state_dict()
    lacking = {name: value for name, value in state.items() if not name.startswith("body.1.r")}
    assert "2 of 9 names missing (body.1.running_mean, body.1.running_var)" in refused(lacking)
    assert "1 of 10 names unexpected (extra.weight)" in refused({**state, "extra.weight": torch.ones(1)})
    many = {f"other.{i}": torch.ones(1) for i in range(9)}
    assert "8 of 9 names missing (body.0.weight, body.0.bias, body.1.weight, body.1.bias and 4 more)" in refused(many)
    assert "9 of 9 names unexpected (other.0, other.1, other.2, other.3 and 5 more)" in refused(many)
    wide = {**state, "body.0.weight": torch.ones(9, 3, 3, 3)}
    assert "1 shapes differ: body.0.weight 9 x 3 x 3 x 3, here 8 x 3 x 3 x 3" in refused(wide)


def test_other_classes() -> None:
    state = filled(classes=21).state_dict()
    said = refused(state, classes=3)
    assert "weights of 21 classes for a network of 3 (score.weight, score.bias)" in said
    assert "say head: new" not in said
    with pytest.raises(NetworkError, match=r"\(score\.weight, score\.bias\); say head: new$"):
        fit(filled(), state, classes=3, where="w", remedy="; say head: new")
    net = filled(1)
    begun = net.score.weight.clone()
    fit(net, state, classes=3, where="w", anew=["score.weight", "score.bias"])
    assert torch.equal(net.score.weight, begun)
    assert torch.equal(net.body[0].weight, state["body.0.weight"])


def test_what_begins_anew_does_so_with_as_many_classes_too() -> None:
    net, state = filled(1), filled(7).state_dict()
    begun = net.score.weight.clone()
    fit(net, state, classes=3, where="w", anew=["score.weight", "score.bias"])
    assert torch.equal(net.score.weight, begun)
    assert torch.equal(net.body[0].weight, state["body.0.weight"])


def test_layers_in_multiples_of_the_classes_begin_anew_with_the_head() -> None:
    new = class_layers("dilated", 3)
    assert {name.partition(".")[0] for name in new} == {"score", "context"}
    assert {name.partition(".")[0] for name in class_layers("road", 11)} == {"score", "auxiliary"}
    with torch.device("meta"):
        net, other = built("dilated", 3), built("dilated", 21)
    fit(net, other.state_dict(), classes=3, where="w", anew=new)
    with pytest.raises(NetworkError, match=r"weights of 21 classes for a network of 3 \(score\.weight"):
        fit(net, other.state_dict(), classes=3, where="w")


def test_a_head_does_not_excuse_another_network() -> None:
    state = {**filled(classes=21).state_dict(), "body.0.weight": torch.ones(8, 4, 3, 3)}
    with pytest.raises(NetworkError, match="shapes differ"):
        fit(filled(), state, classes=3, where="w", anew=["score.weight", "score.bias"])


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch.hub."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("network", ["lraspp_mobilenet", "deeplabv3_mobilenet"])
def test_what_torchvision_publishes_loads_by_name(network: str, hub: Path) -> None:
    source = built(network, 21)
    torch.save(source.net.state_dict(), hub / FILES[network])  # type: ignore[union-attr, operator]
    weights = open_weights(PUBLISHED[network], network=network)
    assert weights.classes == VOC
    assert weights.spec == INPUTS["imagenet"]
    net = built(network, 21)
    fit(net, weights.state, classes=21, where="w")
    for name, value in source.state_dict().items():
        assert torch.equal(net.state_dict()[name], value)


CLASSIFIERS = {
    "segnet": ("vgg16_bn", "VGG16_BN_Weights.DEFAULT", "vgg16_bn-6c64b313.pth"),
    "deeplab_v1": ("vgg16", "VGG16_Weights.IMAGENET1K_FEATURES", "vgg16_features-amdegroot-88682ab5.pth"),
    "unet_resnet34": ("resnet34", "ResNet34_Weights.DEFAULT", "resnet34-b627a593.pth"),
}


@pytest.mark.parametrize("network", CLASSIFIERS)
def test_what_a_classifier_learnt_begins_an_encoder(network: str, hub: Path) -> None:
    model, name, file = CLASSIFIERS[network]
    source = get_model(model, weights=None)
    head = {"classifier.6.bias": torch.zeros(1)} if "vgg" in model else {"fc.bias": torch.zeros(1)}
    state = {key: value for key, value in source.state_dict().items() if not key.startswith(("classifier.", "fc."))}
    torch.save({**state, **head}, hub / file)
    net, untouched = built(network, 3), built(network, 3)
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
        load_backbone(built("unet_resnet34", 3), str(path), network="unet_resnet34")
    with pytest.raises(ConfigError, match=r"backbone: road has none of torchvision's VGG16 or ResNets as its encoder"):
        load_backbone(built("road", 3), str(path), network="road")
    with pytest.raises(ConfigError, match=r"backbone: 'ResNet18_Weights.DEFAULT' is neither .* publishes ResNet34_Wei"):
        load_backbone(built("unet_resnet34", 3), "ResNet18_Weights.DEFAULT", network="unet_resnet34")


@pytest.mark.parametrize("network", PUBLISHED)
def test_a_download_that_fails_says_what_to_do(network: str, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    with pytest.raises(NetworkError) as told:
        open_weights(PUBLISHED[network], network=network)
    url = f"https://download.pytorch.org/models/{FILES[network]}"
    place = f"fetch it elsewhere and put it at {hub / FILES[network]}"
    assert str(told.value) == f"{url}: cannot be downloaded (Name or service not known); {place}"


def test_a_name_that_is_none() -> None:
    with pytest.raises(ConfigError, match=r"'FCN_ResNet50_Weights.X' is neither .* torchvision publishes LRASPP_Mob"):
        open_weights("FCN_ResNet50_Weights.X", network="lraspp_mobilenet")
    with pytest.raises(ConfigError, match="a name that fits segnet: torchvision publishes none of it"):
        open_weights("FCN_ResNet50_Weights.DEFAULT", network="segnet")


def test_a_sidecar_says_what_a_file_cannot(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(filled().state_dict(), path)
    assert open_weights(path, network="road").spec is None
    said = {"colour": "rgb", "scale": 1, "mean": [1, 2, 3], "std": [4, 5, 6], "classes": ["a", "b"], "size": [64, 96]}
    (tmp_path / "w.pt.yaml").write_text(yaml.safe_dump(said))
    weights = open_weights(path, network="road")
    assert weights.spec == InputSpec((1, 2, 3), (4, 5, 6), "rgb", 1)
    assert weights.classes is not None
    assert (weights.classes.names, weights.size) == (("a", "b"), (64, 96))
    torch.save({"net": filled().state_dict(), "about": {**said, "network": "road", "prefer": {"a": 2}}}, path)
    assert open_weights(path, network="road").prefer == {"a": 2}
    (tmp_path / "w.pt.yaml").write_text(yaml.safe_dump({**said, "prefer": {"b": 1}}))
    assert open_weights(path, network="road").prefer == {"b": 1}  # what the user says last
    (tmp_path / "w.pt.yaml").write_text(yaml.safe_dump({**said, "size": [96, 128]}))
    assert open_weights(path, network="road").size == (96, 128)
    (tmp_path / "w.pt.yaml").write_text(yaml.safe_dump({k: v for k, v in said.items() if k != "size"}))
    assert open_weights(path, network="road").size == (64, 96)
    (tmp_path / "w.pt.yaml").write_text(yaml.safe_dump(said))
    about = {**said, "network": "road", "scale": 255}
    torch.save({"net": filled().state_dict(), "about": about}, path)
    with pytest.raises(ConfigError, match=r"w\.pt\.yaml: contradicts .*w\.pt, which says colour rgb, scale 255"):
        open_weights(path, network="road")
    (tmp_path / "w.pt.yaml").unlink()
    assert open_weights(path, network="road").spec == InputSpec((1, 2, 3), (4, 5, 6), "rgb", 255)
    with pytest.raises(NetworkError, match="weights of road, not of segnet"):
        open_weights(path, network="segnet")


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({}, None),  # classes alone say nothing of pictures
        ({"mean": [0, 0, 0], "std": [1, 1, 1]}, None),
        ({"mean": [0.4, 0.4, 0.4]}, "mean and std belong together, and colour and scale to them"),
        ({"colour": "bgr"}, "mean and std belong together"),
        ({"layout": "nhwc"}, "layout: says what an ONNX is like; weights have no use for it"),
        ({"onnx": "w.onnx"}, "onnx: says what an ONNX is like"),
    ],
)
def test_what_a_sidecar_leaves_open_stays_open(keys: dict[str, Any], fault: str | None, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(filled().state_dict(), path)
    (tmp_path / "w.pt.yaml").write_text(yaml.safe_dump({"classes": ["a", "b"], **keys}))
    if fault is None:
        assert (open_weights(path, network="road").spec is not None) == ("mean" in keys)
        return
    with pytest.raises(ConfigError, match=f"w.pt.yaml: {fault}"):
        open_weights(path, network="road")


def test_a_name_too_long_for_a_file_is_one_line() -> None:
    with pytest.raises(NetworkError, match=r"x\.pt: File name too long"):
        open_weights(f"{'x' * 300}.pt", network="road")


def test_pictures_are_made_as_torchvision_makes_them() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 5, 7, 3), np.uint8)
    ours = Normalise(INPUTS["imagenet"])(torch.from_numpy(image))
    rgb = torch.from_numpy(image[..., ::-1].copy()).permute(0, 3, 1, 2) / 255
    from torchvision.transforms.functional import normalize

    theirs = normalize(rgb, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


SPEC = InputSpec((0.4, 0.4, 0.4), (0.3, 0.3, 0.3))


@pytest.fixture(scope="module")
def learnt() -> Small:
    """A network that tells the fields apart by their colour."""
    net, pairs = filled(), coloured_fields()
    images = Normalise(SPEC)(torch.from_numpy(np.stack(pairs.images)))
    labels = torch.from_numpy(np.stack(pairs.labels)).long()
    optimiser = torch.optim.Adam(net.parameters(), lr=0.05)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net.train()(images), labels, ignore_index=255).backward()
        optimiser.step()
    with torch.no_grad():
        for _ in range(40):
            net(images)  # the statistics of the last weights, not of those on the way
    return net.eval()


def miou(net: nn.Module, spec: InputSpec) -> float:
    pairs = coloured_fields(seed=4)
    with torch.no_grad():
        said = net(Normalise(spec)(torch.from_numpy(np.stack(pairs.images)))).argmax(1).numpy()
    truth = np.stack(pairs.labels)
    counted = truth != 255
    each = [((said == c) & (truth == c))[counted].sum() / ((said == c) | (truth == c))[counted].sum() for c in range(3)]
    return float(np.mean(each))


@pytest.mark.parametrize("wrong", [turned(SPEC), INPUTS["bytes"]], ids=str)
def test_the_wrong_input_costs_nearly_everything_and_is_caught(learnt: Small, wrong: InputSpec) -> None:
    images = coloured_fields(seed=3).images
    assert miou(learnt, SPEC) > 0.9
    refuse_misfit(learnt, SPEC, images, where="w")
    assert miou(learnt, wrong) < miou(learnt, SPEC) - 0.5
    assert miou(learnt, INPUTS["imagenet"]) < miou(learnt, SPEC) - 0.5
    with pytest.raises(ConfigError, match=r"w: does not expect pictures with colour rgb, .* but rather colour bgr"):
        refuse_misfit(learnt, wrong, images, where="w")


@pytest.mark.parametrize("wrong", [turned(SPEC), INPUTS["bytes"]], ids=str)
def test_labels_tell_when_the_input_is_wrong(learnt: Small, wrong: InputSpec) -> None:
    fields = coloured_fields(seed=3)
    classes = Classes(tuple(NAMES), ((0, 0, 0),) * 3)
    refuse_worse(learnt, SPEC, fields, classes, where="w")
    with pytest.raises(ConfigError, match=r"w: does not expect .*mean IoU \d+ on 3 of them\), but rather colour"):
        refuse_worse(learnt, wrong, fields, classes, where="w")


def test_pictures_are_checked_at_the_network_s_size(learnt: Small) -> None:
    fields, seen = coloured_fields(seed=3), set[tuple[int, ...]]()
    classes = Classes(tuple(NAMES), ((0, 0, 0),) * 3)
    hook = learnt.body[0].register_forward_pre_hook(lambda _, inputs: seen.add(tuple(inputs[0].shape[-2:])))
    for size in ((32, 40), (128, 100)):
        refuse_misfit(learnt, SPEC, fields.images, where="w", size=size)
        refuse_worse(learnt, SPEC, fields, classes, where="w", size=size)
        with pytest.raises(ConfigError, match="does not expect pictures"):
            refuse_misfit(learnt, turned(SPEC), fields.images, where="w", size=size)
        with pytest.raises(ConfigError, match="mean IoU"):
            refuse_worse(learnt, turned(SPEC), fields, classes, where="w", size=size)
        assert seen == {size}
        seen.clear()
    hook.remove()


def test_what_cannot_be_checked_is_let_pass(learnt: Small) -> None:
    refuse_misfit(learnt, turned(SPEC), [], where="w")
    refuse_misfit(nn.Conv2d(3, 3, 1), turned(SPEC), coloured_fields().images, where="w")


def test_how_strange_pictures_are(learnt: Small) -> None:
    images = coloured_fields(seed=3).images
    right = strangeness(learnt, SPEC, images)
    assert right < 2 * FAR
    assert strangeness(learnt, replace(SPEC, scale=1.0), images) > 50
    assert not learnt.training
