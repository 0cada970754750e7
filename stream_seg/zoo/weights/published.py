"""Weights that torchvision publishes: found by name, from the local cache or downloaded."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

from stream_seg.errors import ConfigError, NetworkError
from stream_seg.zoo.weights.input_spec import InputSpec


def fetch_published(
    name: str, model: object, *, key: str, network: str, hint: str = ""
) -> tuple[Path, InputSpec, list[str]]:
    """Find weights of torchvision's `model` by name, for example FCN_ResNet50_Weights.DEFAULT; download them if needed.

    Returns their file, input spec and class names. Raises ConfigError, which names `key` and ends with `hint`, for a
    name that `model` does not have (None: it is not torchvision's), NetworkError for a failed download.
    """
    from torchvision.models import get_model_weights

    known = {str(weights): weights for weights in get_model_weights(str(model))} if model else {}
    kind, _, member = name.partition(".")
    if member == "DEFAULT":
        name = next((full for full in known if full.startswith(f"{kind}.")), name)
    if name not in known:
        alternatives = f"torchvision has {', '.join(known) or 'none'}{hint}"
        reason = f"{name!r} is neither a file of weights nor torchvision's weights for {network}"
        raise ConfigError(f"{key}: {reason}; {alternatives}")
    entry, transforms = known[name], known[name].transforms()
    spec = InputSpec(tuple(transforms.mean), tuple(transforms.std), "rgb")
    return _download(entry.url), spec, entry.meta["categories"]


def _download(url: str) -> Path:
    from torch.hub import download_url_to_file, get_dir

    path = Path(get_dir(), "checkpoints", url.rpartition("/")[2])
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # torchvision's names end in the first digits of the file's SHA-256
        download_url_to_file(url, str(path), path.stem.rpartition("-")[2], progress=False)
    except (URLError, OSError, RuntimeError) as error:  # RuntimeError: the SHA-256 differs
        reason = error.reason if isinstance(error, URLError) else error
        raise NetworkError(f"{url}: cannot be downloaded ({reason}); download it to {path}") from error
    return path
