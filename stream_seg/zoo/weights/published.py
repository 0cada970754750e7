"""Weights that torchvision publishes: by name, from its cache on this machine or its server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

from stream_seg.datasets.palettes import VOC
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.network.shipped import NETWORKS
from stream_seg.network.sidecar import coloured
from stream_seg.types import Classes
from stream_seg.zoo import BUILDERS
from stream_seg.zoo.weights.normalise import InputSpec


@dataclass(frozen=True)
class Published:
    """The file, what it expects of a picture, and its classes."""

    path: Path
    spec: InputSpec
    classes: Classes


def published(name: str, *, network: str) -> Published:
    """What torchvision's `name`, for example FCN_ResNet50_Weights.DEFAULT, stands for; downloaded if it is not here.

    Raises ConfigError for a name that `network` has no weights of, NetworkError where it cannot be downloaded.
    """
    ours = f"; {network} is shipped here" if network in NETWORKS else ""
    chosen = _chosen(name, BUILDERS[network].keys.get("model"), key="weights", network=network, ours=ours)
    names = tuple("background" if name == "__background__" else name for name in chosen.meta["categories"])
    palette = "voc" if set(names) <= set(VOC.names) else None
    return Published(_file(chosen), _spec(chosen), coloured(names, palette, where=name))


def published_backbone(name: str, *, model: str, network: str) -> tuple[Path, InputSpec]:
    """The file of torchvision's `name`, for example ResNet50_Weights.DEFAULT, of a classifier `model`, and what it
    expects of a picture. Raises as `published`."""
    chosen = _chosen(name, model, key="backbone", network=network)
    return _file(chosen), _spec(chosen)


def _chosen(name: str, model: object, *, key: str, network: str, ours: str = "") -> Any:
    from torchvision.models import get_model_weights

    known = {str(weights): weights for weights in get_model_weights(str(model))} if model else {}
    kind, _, member = name.partition(".")
    if member == "DEFAULT" and known:
        name = next((full for full in known if full.startswith(f"{kind}.")), name)
    if name not in known:
        has = f"torchvision publishes {', '.join(known)}" if known else "torchvision publishes none of it"
        raise ConfigError(f"{key}: {name!r} is neither a file of weights nor a name that fits {network}: {has}{ours}")
    return known[name]


def _spec(chosen: Any) -> InputSpec:
    asked = chosen.transforms()
    return InputSpec(tuple(asked.mean), tuple(asked.std), "rgb")


def _file(chosen: Any) -> Path:
    from torch.hub import get_dir

    path = Path(get_dir(), "checkpoints", chosen.url.rpartition("/")[2])
    if not path.exists():
        _download(chosen.url, path)
    return path


def _download(url: str, path: Path) -> None:
    from torch.hub import download_url_to_file

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # torchvision's names end in the first digits of the file's SHA-256
        download_url_to_file(url, str(path), path.stem.rpartition("-")[2], progress=False)
    except (URLError, OSError, RuntimeError) as error:  # RuntimeError: another SHA-256
        reason = error.reason if isinstance(error, URLError) else error
        raise NetworkError(
            f"{url}: cannot be downloaded ({reason}); fetch it elsewhere and put it at {path}"
        ) from error
