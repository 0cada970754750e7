"""Test that synthetic frames are reproducible, and their labels and motion exact."""

from __future__ import annotations

from typing import get_args

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from stream_seg.datasets.palettes import CAMVID
from stream_seg.synth import Canvas, Move, render
from stream_seg.synth.camera import camera_at
from stream_seg.synth.canvas import NEAR_M, clip_near
from stream_seg.synth.surfaces import Mesh, Texture

SMALL = 320, 180


def grid(drawing: Canvas) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    height, width = drawing.image.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return x, y


def warp_error(past: Canvas, now: Canvas, motion: NDArray[np.float32]) -> tuple[float, float, NDArray[np.bool_]]:
    """Warp the past frame to the current one. Return the share of equal labels, the mean error there, and the mask."""
    x, y = grid(now)
    map_x, map_y = x + motion[..., 0], y + motion[..., 1]
    seen = (map_x >= 1) & (map_x <= x.max() - 1) & (map_y >= 1) & (map_y <= y.max() - 1)
    same = cv2.remap(past.labels(), map_x, map_y, cv2.INTER_NEAREST) == now.labels()
    warped = cv2.remap(past.image, map_x, map_y, cv2.INTER_LINEAR)
    error = np.abs(warped.astype(np.float32) - now.image).mean(axis=2)
    return float(same[seen].mean()), float(error[seen & same].mean()), seen


@pytest.mark.parametrize(("seed", "k", "move"), [(0, 40, "drive"), (4, 100, "drive"), (4, 30, "pan")])
def test_motion_warps_the_previous_frame_to_the_current_one(seed: int, k: int, move: Move) -> None:
    past, now = (render(seed, number, move=move, shake=3, noise=0) for number in (k - 1, k))
    motion = now.motion()
    labels, error, seen = warp_error(past, now, motion)
    assert seen.mean() > 0.95
    assert labels > 0.97
    assert error < 2.5
    still = warp_error(past, now, np.zeros_like(motion))
    assert still[0] < labels - 0.005
    assert still[1] > 2.5 * error


def test_motion_of_the_ground_is_that_of_the_camera() -> None:
    now = render(4, 50, *SMALL, shake=2)
    cameras = [camera_at(k / 30, seed=4, size=SMALL[::-1], shake=2) for k in (50, 49)]
    road = now.labels() == CAMVID.index("road")
    x, y = grid(now)
    depth = cameras[0].focal * cameras[0].position[1] / (y[road] - cameras[0].cy)
    across = (x[road] - cameras[0].cx) * depth / cameras[0].focal
    points = np.stack((across, np.full_like(depth, -cameras[0].position[1]), depth), axis=1)
    expected = cameras[1].project(points + np.subtract(cameras[0].position, cameras[1].position))
    np.testing.assert_allclose(now.motion()[road], expected - np.stack((x, y), axis=2)[road], atol=0.01)


def test_only_traffic_moves_before_a_static_camera() -> None:
    drawing = render(4, 60, *SMALL, move="static", shake=0)
    speed = np.linalg.norm(drawing.motion(), axis=2)
    movable = np.isin(drawing.labels(), [CAMVID.index(name) for name in ("car", "pedestrian", "bicyclist")])
    assert speed[~movable].max() < 1e-2
    assert speed[movable].max() > 0.1


def test_a_plane_seen_from_its_edge_has_a_motion() -> None:
    drawing = render(4, 30, 480, 360, rate=15, move="pan")
    speed = np.linalg.norm(drawing.motion(), axis=2)
    assert np.isfinite(speed).all()
    assert speed.max() < 20


def test_a_frame_does_not_depend_on_earlier_ones() -> None:
    first = render(4, 77, *SMALL)
    for k in (0, 300, 76):
        render(4, k, 200, 100)
    render(0, 77, *SMALL)
    again = render(4, 77, *SMALL)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.labels(), again.labels())
    np.testing.assert_array_equal(first.motion(), again.motion())


def test_seed_and_number_change_the_image() -> None:
    first = render(0, 10, *SMALL, noise=0).image
    for other in (render(4, 10, *SMALL, noise=0), render(0, 12, *SMALL, noise=0)):
        assert np.abs(first.astype(int) - other.image).mean() > 1


def test_rate_sets_the_time_of_a_frame() -> None:
    slow, fast = render(0, 10, *SMALL, rate=10, noise=0), render(0, 60, *SMALL, rate=60, noise=0)
    np.testing.assert_array_equal(slow.image, fast.image)
    assert np.abs(slow.motion()).mean() > 4 * np.abs(fast.motion()).mean()


def test_a_few_towns_contain_every_class() -> None:
    views = [render(s, k).labels().ravel() for s in (0, 4) for k in (20, 100, 200, 300, 400)]
    shares = np.bincount(np.concatenate(views), minlength=len(CAMVID))
    assert shares.shape == (len(CAMVID),)
    assert (shares / shares.sum() > 0.0005).all(), dict(zip(CAMVID.names, shares / shares.sum(), strict=True))
    assert 0.2 < shares[CAMVID.index("road")] / shares.sum() < 0.5


@pytest.mark.parametrize("move", get_args(Move))
@pytest.mark.parametrize("size", [(64, 64), (65, 301), (700, 90), (480, 360)])
def test_any_size_is_complete(size: tuple[int, int], move: Move) -> None:
    drawing = render(0, 33, *size, move=move)
    width, height = size
    assert drawing.image.shape == (height, width, 3)
    assert drawing.image.dtype == np.uint8
    assert drawing.labels().shape == (height, width)
    assert drawing.labels().max() < len(CAMVID)
    assert drawing.motion().shape == (height, width, 2)
    assert np.isfinite(drawing.motion()).all()


def test_the_same_view_in_two_sizes_has_the_same_labels() -> None:
    large, small = render(4, 25, 640, 360, shake=0).labels(), render(4, 25, 320, 180, shake=0).labels()
    assert (cv2.resize(large, (320, 180), interpolation=cv2.INTER_NEAREST) == small).mean() > 0.96


def test_noise_has_its_deviation_and_changes_in_each_frame() -> None:
    clean, noisy = (render(0, 10, *SMALL, noise=noise).image.astype(int) for noise in (0, 8))
    middle = (clean > 60) & (clean < 190)
    assert 6 < (noisy - clean)[middle].std() < 10
    grains = [render(0, k, *SMALL, move="static", shake=0, noise=8).image[-20:].astype(int) for k in (5, 6)]
    assert np.abs(grains[0] - grains[1]).mean() > 3


def test_shake_is_in_pixels_at_a_width_of_640() -> None:
    still, shaken = ([camera_at(k / 30, seed=0, size=(360, 1280), shake=s) for k in range(200)] for s in (0.0, 3.0))
    swing = [abs(a.cy - b.cy) for a, b in zip(still, shaken, strict=True)]
    assert 3 < max(swing) <= 6


def canvas(width: int = 80, height: int = 60) -> Canvas:
    view = camera_at(0, seed=0, size=(height, width))
    return Canvas(np.zeros((height, width, 3), np.uint8), view, view, (255, 255, 255), clear_m=1e9)


def rectangle(at: float) -> NDArray[np.float64]:
    """Return the corners of a rectangle 2 m wide, 1 m tall, ahead of the camera."""
    x, y, z = canvas().now.position
    return np.array([[x - 1, y + 0.5, z + at], [x + 1, y + 0.5, z + at], [x - 1, y - 0.5, z + at]])


def test_a_texture_is_upright_and_sets_the_labels_that_it_covers() -> None:
    colour = np.zeros((4, 8, 3), np.float32)
    colour[:2, :4] = 200  # the top left quarter is bright
    target = canvas()
    target.register_planes(0, rectangle(1e4)[None])
    target.draw_texture(Texture.from_colours(colour), rectangle(4.0), 7)
    labels = target.labels()
    rows, columns = np.nonzero(labels == 7)
    focal = target.now.focal
    assert abs(np.ptp(columns) + 1 - 2 * focal / 4) <= 1.5
    assert abs(np.ptp(rows) + 1 - focal / 4) <= 1.5
    bright_rows, bright_columns = np.nonzero(target.image[..., 0] > 100)
    assert bright_rows.mean() < rows.mean()
    assert bright_columns.mean() < columns.mean()
    assert not target.image[labels == 0].max(initial=0) > 100


def test_transparent_textures_keep_the_background() -> None:
    target = canvas()
    target.image[:] = 90
    target.register_planes(0, rectangle(1e4)[None])
    target.draw_texture(
        Texture.from_colours(np.full((4, 4, 3), 250, np.float32), np.zeros((4, 4), np.float32)), rectangle(4.0), 7
    )
    assert (target.image == 90).all()
    assert (target.labels() == 0).all()


def test_the_far_side_of_a_body_is_culled() -> None:
    x, y, z = canvas().now.position
    clockwise = [(x - 1, y - 1, z + 5), (x - 1, y + 1, z + 5), (x + 1, y + 1, z + 5), (x + 1, y - 1, z + 5)]
    shown = []
    for corners in (clockwise, clockwise[::-1]):
        target = canvas()
        target.register_planes(0, rectangle(1e4)[None])
        target.draw_mesh(Mesh.from_parts([(corners, (10, 200, 30))]), np.zeros(3), 8, cull=True)
        shown.append(bool((target.labels() == 8).any()))
    assert shown == [True, False]


def test_clipping_keeps_the_part_ahead() -> None:
    wall = np.array([[2.0, 0, -5], [2, 0, 5], [2, 3, 5], [2, 3, -5]])
    part = clip_near(wall)
    assert part[:, 2].min() == pytest.approx(NEAR_M)
    assert part[:, 2].max() == 5
    assert len(part) == 4
    on = np.array([0.0, 0, 10])
    assert len(clip_near(wall - on)) == 0
    np.testing.assert_array_equal(clip_near(wall + on), wall + on)
