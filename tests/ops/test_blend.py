"""Compare the fixed-point blend with floating point, and check its exact cases."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from stream_seg.ops.blend import blend
from tests.ops.test_labels import interpolation

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (256, 3)).astype(np.uint8)
OPACITY = RNG.random(256)
CASES = {  # labels, image
    "enlarged": ((22, 30), (67, 121)),
    "as large": ((40, 50), (40, 50)),
    "reduced": ((90, 70), (31, 23)),
    "a single label": ((1, 1), (9, 8)),
    "one row of one pixel": ((5, 6), (1, 1)),
}


def random_image(size: tuple[int, int]) -> NDArray[np.uint8]:
    return RNG.integers(0, 256, (*size, 3)).astype(np.uint8)


def regions(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return regions with some noise, as networks yield them."""
    labels = RNG.integers(0, 256, (size[0] // 8 + 1, size[1] // 8 + 1)).astype(np.uint8)
    labels = labels.repeat(8, 0).repeat(8, 1)[: size[0], : size[1]]
    return np.where(RNG.random(size) < 0.1, RNG.integers(0, 256, size), labels).astype(np.uint8)


def blend_float(image: NDArray[np.uint8], labels: NDArray[np.uint8], *, soft: bool) -> NDArray[np.float64]:
    rows, columns = interpolation(image.shape[0], labels.shape[0]), interpolation(image.shape[1], labels.shape[1])
    if not soft:
        rows, columns = (matrix >= 0.5 for matrix in (rows, columns))
    opacity = OPACITY[labels][..., None]
    ink, keep = (
        np.einsum("yh,hwc,xw->yxc", rows, table, columns) for table in (COLOURS[labels] * opacity, 1 - opacity)
    )
    return image * keep + ink


@pytest.mark.parametrize(("source", "size"), CASES.values(), ids=CASES)
def test_equals_floating_point(source: tuple[int, int], size: tuple[int, int]) -> None:
    image, labels = random_image(size), regions(source)
    expected = blend_float(image, labels, soft=True)
    blend(image, labels, COLOURS, OPACITY)
    assert np.abs(image - expected).max() < 0.6


def test_hard_edges_are_nearest_neighbor() -> None:
    image, labels = random_image((60, 82)), regions((20, 30))  # no pixel lies half way between two labels
    expected = blend_float(image, labels, soft=False)
    blend(image, labels, COLOURS, OPACITY, soft=False)
    assert np.abs(image - expected).max() < 0.6


def test_soft_edges_are_soft() -> None:
    labels = np.repeat(np.array([[0, 1]], np.uint8), 4, axis=0).repeat(4, axis=1)
    image = np.zeros((32, 64, 3), np.uint8)
    colours = np.zeros((256, 3), np.uint8)
    colours[1] = 200
    blend(image, labels, colours, np.ones(256))
    assert len(np.unique(image)) > 4
    assert (np.diff(image[0, :, 0].astype(int)) >= 0).all()


@pytest.mark.parametrize("soft", [True, False])
def test_opacity_zero_leaves_pixels_and_one_replaces_them(soft: bool) -> None:
    labels = np.zeros((20, 40), np.uint8)
    labels[:, 20:] = 1
    image = random_image((90, 170))
    before = image.copy()
    opacity = np.zeros(256)
    opacity[1] = 1
    blend(image, labels, COLOURS, opacity, soft=soft)
    edge = 4 if soft else 0
    assert np.array_equal(image[:, : 85 - edge], before[:, : 85 - edge])
    assert (image[:, 85 + edge :] == COLOURS[1]).all()
    assert not np.array_equal(image, before)


def test_white_does_not_overflow() -> None:
    for opacity in np.linspace(0, 1, 52):
        image = np.full((9, 9, 3), 255, np.uint8)
        blend(image, regions((4, 4)), np.full((256, 3), 255, np.uint8), np.full(256, opacity))
        assert (image == 255).all()


def test_rejects_an_image_that_it_cannot_write() -> None:
    labels = np.zeros((4, 4), np.uint8)
    image = random_image((8, 8))
    with pytest.raises(ValueError, match="C-contiguous"):
        blend(image[:, ::2], labels, COLOURS, OPACITY)
    with pytest.raises(ValueError, match=r"expected uint8 \(H, W, 3\)"):
        blend(image[..., 0].copy(), labels, COLOURS, OPACITY)
    with pytest.raises(ValueError, match="labels: expected uint8"):
        blend(image, labels.astype(np.int64), COLOURS, OPACITY)
    image.flags.writeable = False
    with pytest.raises(ValueError, match="writeable"):
        blend(image, labels, COLOURS, OPACITY)


def test_works_without_a_writable_cache() -> None:
    """Nothing is cached in a read-only installation without a home directory; the kernel is compiled in every run."""
    program = (
        "from stream_seg.ops.jit import jit\n"
        "source = compile('def double(x): return 2 * x', '/dev/null/kernels.py', 'exec')\n"
        "exec(source)\n"
        "print(jit(double)(21))\n"
    )
    nowhere = {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null", "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.run([sys.executable, "-c", program], env=nowhere, capture_output=True, text=True, check=False)
    assert (process.stdout, process.returncode) == ("42\n", 0), process.stderr


@pytest.mark.parametrize(("mode", "used"), [(0o755, True), (0o777, False)])
def test_a_cache_that_others_can_write_is_not_used(mode: int, used: bool, tmp_path: Path) -> None:
    """Numba's cache is pickled, so another user's file in it could run any code."""
    (tmp_path / "kernels.py").write_text("def double(x):\n    return 2 * x\n")
    program = (
        "import os, sys\n"
        "from numba.core.caching import IndexDataCacheFile\n"
        "loads = []\n"
        "IndexDataCacheFile.load = lambda self, signature: loads.append(signature)\n"
        "from kernels import double\n"
        "from stream_seg.ops.jit import jit\n"
        "place = jit(double).stats.cache_path\n"
        "os.chmod(place, int(sys.argv[1]))\n"
        "print(jit(double)(21), len(loads))\n"
    )
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    environment = {"HOME": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": paths}
    command = [sys.executable, "-c", program, str(mode)]
    (tmp_path / "cache").mkdir(mode=0o755)
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (process.stdout, process.returncode) == (f"42 {int(used)}\n", 0), process.stderr
