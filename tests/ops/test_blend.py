"""The fixed-point blend against plain floating point, and what it promises exactly."""

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
CASES = {  # labels, picture
    "enlarged": ((22, 30), (67, 121)),
    "as large": ((40, 50), (40, 50)),
    "reduced": ((90, 70), (31, 23)),
    "a single label": ((1, 1), (9, 8)),
    "one row of one pixel": ((5, 6), (1, 1)),
}


def picture(size: tuple[int, int]) -> NDArray[np.uint8]:
    return RNG.integers(0, 256, (*size, 3)).astype(np.uint8)


def regions(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Labels as networks give them: regions, with some noise."""
    labels = RNG.integers(0, 256, (size[0] // 8 + 1, size[1] // 8 + 1)).astype(np.uint8)
    labels = labels.repeat(8, 0).repeat(8, 1)[: size[0], : size[1]]
    return np.where(RNG.random(size) < 0.1, RNG.integers(0, 256, size), labels).astype(np.uint8)


def plain(image: NDArray[np.uint8], labels: NDArray[np.uint8], *, soft: bool) -> NDArray[np.float64]:
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
    image, labels = picture(size), regions(source)
    expected = plain(image, labels, soft=True)
    blend(image, labels, COLOURS, OPACITY)
    assert np.abs(image - expected).max() < 0.6


def test_hard_edges_are_nearest_neighbour() -> None:
    image, labels = picture((60, 82)), regions((20, 30))  # no pixel lies half way between two labels
    expected = plain(image, labels, soft=False)
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
    image = picture((90, 170))
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


def test_refuses_an_image_it_cannot_draw_on() -> None:
    labels = np.zeros((4, 4), np.uint8)
    image = picture((8, 8))
    with pytest.raises(ValueError, match="C-contiguous"):
        blend(image[:, ::2], labels, COLOURS, OPACITY)
    with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\)"):
        blend(image[..., 0].copy(), labels, COLOURS, OPACITY)
    with pytest.raises(ValueError, match="labels: uint8"):
        blend(image, labels.astype(np.int64), COLOURS, OPACITY)
    image.flags.writeable = False
    with pytest.raises(ValueError, match="writeable"):
        blend(image, labels, COLOURS, OPACITY)


def test_works_where_no_cache_can_be_written() -> None:
    """As installed read-only, with no home directory: nothing is cached, and the kernel is compiled anew."""
    program = (
        "from stream_seg.ops.jit import compiled\n"
        "source = compile('def double(x): return 2 * x', '/dev/null/kernels.py', 'exec')\n"
        "exec(source)\n"
        "print(compiled(double)(21))\n"
    )
    nowhere = {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", program], env=nowhere, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("42\n", 0), done.stderr


@pytest.mark.parametrize(("mode", "kept"), [(0o755, True), (0o777, False)])
def test_a_cache_that_others_may_write_is_no_code(mode: int, kept: bool, tmp_path: Path) -> None:
    """Numba's cache is pickled: what another user put there would run as this one."""
    (tmp_path / "kernels.py").write_text("def double(x):\n    return 2 * x\n")
    program = (
        "import os, sys\n"
        "from numba.core.caching import IndexDataCacheFile\n"
        "loads = []\n"
        "IndexDataCacheFile.load = lambda self, signature: loads.append(signature)\n"
        "from kernels import double\n"
        "from stream_seg.ops.jit import compiled\n"
        "place = compiled(double).stats.cache_path\n"
        "os.chmod(place, int(sys.argv[1]))\n"
        "print(compiled(double)(21), len(loads))\n"
    )
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    surroundings = {"HOME": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": paths}
    command = [sys.executable, "-c", program, str(mode)]
    (tmp_path / "cache").mkdir(mode=0o755)
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == (f"42 {int(kept)}\n", 0), done.stderr
