"""Weights that torchvision publishes: found by name, from the local cache or downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

from stream_seg.datasets.palettes import VOC
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.network.shipped import NETWORKS
from stream_seg.network.sidecar import make_classes
from stream_seg.types import Classes
from stream_seg.zoo import BUILDERS
from stream_seg.zoo.weights.normalise import InputSpec


@dataclass(frozen=True)
class PublishedWeights:
    """A file of weights, the input that they expect, and their classes."""

    path: Path
    spec: InputSpec
    classes: Classes


def fetch_published(name: str, *, network: str) -> PublishedWeights:
    """Find torchvision's weights by name, for example FCN_ResNet50_Weights.DEFAULT, and download them if needed.

    Raises ConfigError for a name that is none of `network`, NetworkError for a failed download.
    """
    shipped = f"; {network} is shipped with this package" if network in NETWORKS else ""
    entry = _find(name, BUILDERS[network].keys.get("model"), key="weights", network=network, hint=shipped)
    names = tuple("background" if name == "__background__" else name for name in entry.meta["categories"])
    palette = "voc" if set(names) <= set(VOC.names) else None
    return PublishedWeights(_cached_file(entry), _input_spec(entry), make_classes(names, palette, where=name))


def fetch_backbone(name: str, *, model: str, network: str) -> tuple[Path, InputSpec]:
    """Find the weights of a classifier `model` by torchvision's name, for example ResNet50_Weights.DEFAULT.

    Returns their file and input spec. Raises as `fetch_published`.
    """
    entry = _find(name, model, key="backbone", network=network)
    return _cached_file(entry), _input_spec(entry)


def _find(name: str, model: object, *, key: str, network: str, hint: str = "") -> Any:
    """Return the member of torchvision's weights enumeration of `model`. Raises ConfigError."""
    from torchvision.models import get_model_weights

    known = {str(weights): weights for weights in get_model_weights(str(model))} if model else {}
    kind, _, member = name.partition(".")
    if member == "DEFAULT" and known:
        name = next((full for full in known if full.startswith(f"{kind}.")), name)
    if name not in known:
        raise ConfigError(
            f"{key}: {name!r} is neither a file of weights nor torchvision's weights for {network}; torchvision has"
            f" {', '.join(known) or 'none'}{hint}"
        )
    return known[name]


def _input_spec(entry: Any) -> InputSpec:
    transforms = entry.transforms()
    return InputSpec(tuple(transforms.mean), tuple(transforms.std), "rgb")


def _cached_file(entry: Any) -> Path:
    from torch.hub import get_dir

    path = Path(get_dir(), "checkpoints", entry.url.rpartition("/")[2])
    if not path.exists():
        _download(entry.url, path)
    return path


def _download(url: str, path: Path) -> None:
    from torch.hub import download_url_to_file

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # torchvision's names end in the first digits of the file's SHA-256
        download_url_to_file(url, str(path), path.stem.rpartition("-")[2], progress=False)
    except (URLError, OSError, RuntimeError) as error:  # RuntimeError: the SHA-256 differs
        reason = error.reason if isinstance(error, URLError) else error
        raise NetworkError(f"{url}: cannot be downloaded ({reason}); download it to {path}") from error
