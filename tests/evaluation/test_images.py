"""Compare the metrics of `eval` with those of scikit-learn, and test its errors."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console
from sklearn import metrics as sklearn_metrics

from stream_seg.backends.engine import Engine, EngineSpec, Images, Result
from stream_seg.datasets.labelled import read_labels, read_pair, read_pairs
from stream_seg.datasets.scoring import compute_metrics, confusion_matrix
from stream_seg.errors import SourceError
from stream_seg.evaluation.images import evaluate_engine, evaluate_images, tabulate_images
from stream_seg.frame import EngineInfo
from stream_seg.types import VOID, Classes
from tests.support import small_networks

NAMES = ("ground", "wall", "sky", "ghost")
CLASSES = Classes(NAMES, ((0, 0, 0),) * 4)
SIZE = (12, 16)


def write_pair(folder: Path, name: str, labels: np.ndarray, *, split: str = "val") -> None:
    """Write an image that has its labels in every channel, and its label map."""
    for place, array in ((split, np.dstack([labels] * 3)), (f"{split}annot", labels)):
        (folder / place).mkdir(exist_ok=True)
        assert cv2.imwrite(str(folder / place / name), array)


def make_engine(error: int) -> Engine:
    """Return an engine that reads the labels from the image, and is wrong in every `error`-th column."""

    def run(images: Images) -> Result:
        labels = images[..., 0].copy()
        labels[..., ::error] = (labels[..., ::error] + 1) % 3
        return Result(scores=np.stack([labels == c for c in range(4)], axis=1).astype(np.float32))

    return Engine(EngineSpec(SIZE, CLASSES, EngineInfo("fake", "none", "f32", "here")), run)


def test_metrics_equal_those_of_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    truth = draw.integers(0, 3, (50, 60), dtype=np.uint8)
    predicted = np.where(draw.random(truth.shape) < 0.7, truth, draw.integers(0, 3, truth.shape)).astype(np.uint8)
    truth[:5] = VOID
    matrix = confusion_matrix(truth, predicted, classes=4)
    t, p = truth[truth != VOID], predicted[truth != VOID]
    np.testing.assert_array_equal(matrix[:, :4], sklearn_metrics.confusion_matrix(t, p, labels=range(4)))
    metrics = compute_metrics(matrix, CLASSES)
    iou = sklearn_metrics.jaccard_score(t, p, labels=range(3), average=None)
    np.testing.assert_allclose([metrics["class_iou"][name] for name in NAMES[:3]], iou)
    assert metrics["class_iou"]["ghost"] is None
    assert metrics["miou"] == pytest.approx(sklearn_metrics.jaccard_score(t, p, average="macro"))
    assert metrics["pixel_accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(t, p))
    assert metrics["class_accuracy"] == pytest.approx(sklearn_metrics.recall_score(t, p, average="macro"))


def test_a_class_that_is_only_predicted_has_iou_0() -> None:
    truth, predicted = np.zeros((2, 2), np.uint8), np.array([[0, 0], [0, 3]], np.uint8)
    metrics = compute_metrics(confusion_matrix(truth, predicted, classes=4), CLASSES)
    assert metrics["class_iou"] == {"ground": 0.75, "wall": None, "sky": None, "ghost": 0.0}
    assert metrics["miou"] == pytest.approx(0.375)


def test_a_prediction_that_is_no_class_is_a_miss() -> None:
    truth, predicted = np.zeros((2, 2), np.uint8), np.array([[0, 0], [12, 255]], np.uint8)
    metrics = compute_metrics(confusion_matrix(truth, predicted, classes=4), CLASSES)
    assert metrics["class_iou"] == {"ground": 0.5, "wall": None, "sky": None, "ghost": None}
    assert metrics["pixel_accuracy"] == 0.5


def test_no_labelled_pixel_gives_no_metric() -> None:
    metrics = compute_metrics(np.zeros((4, 4), np.int64), CLASSES)
    assert (metrics["miou"], metrics["pixel_accuracy"], metrics["class_accuracy"]) == (None, None, None)


def test_void_is_not_scored(tmp_path: Path) -> None:
    labels = np.random.default_rng(1).integers(0, 3, SIZE, dtype=np.uint8)
    void = labels.copy()
    void[:, ::4] = VOID  # exactly where the engine is wrong
    write_pair(tmp_path, "b.png", labels)
    write_pair(tmp_path, "a.png", labels)
    metrics = evaluate_engine(make_engine(4), tmp_path, split="val")
    assert metrics["pixel_accuracy"] == pytest.approx(0.75)
    assert (metrics["images"], metrics["split"], metrics["network"], metrics["backend"]) == (2, "val", "fake", "none")
    cv2.imwrite(str(tmp_path / "valannot/a.png"), void)
    cv2.imwrite(str(tmp_path / "valannot/b.png"), void)
    assert evaluate_engine(make_engine(4), tmp_path, split="val")["pixel_accuracy"] == 1.0
    assert json.loads(json.dumps(metrics)) == metrics


def test_labels_are_scored_at_their_own_size(tmp_path: Path) -> None:
    labels = np.kron(np.arange(12, dtype=np.uint8).reshape(3, 4) % 3, np.ones((16, 16), np.uint8))
    write_pair(tmp_path, "a.png", labels)
    metrics = evaluate_engine(make_engine(99), tmp_path, split="val")
    assert metrics["pixel_accuracy"] > 0.8
    assert sum(confusion_matrix(labels, labels, classes=4).ravel()) == labels.size


def test_evaluate_opens_the_network_itself(tmp_path: Path) -> None:
    path = small_networks.write_network(
        tmp_path, small_networks.make_model(outputs={"out": 3}), {"classes": small_networks.CLASSES}
    )
    image = small_networks.make_image()
    write_pair(tmp_path, "a.png", np.zeros(small_networks.SIZE, np.uint8))
    cv2.imwrite(str(tmp_path / "val/a.png"), image)
    metrics = evaluate_images(path, tmp_path, backend="onnxruntime")
    assert (metrics["network"], metrics["backend"], metrics["precision"]) == ("mine", "onnxruntime", "f32")
    assert 0 < metrics["pixel_accuracy"] < 1


def test_the_table_has_all_metrics() -> None:
    metrics = {"network": "road", "split": "val", "images": 2, "backend": "openvino", "precision": "int8"}
    screen = Console(file=io.StringIO(), width=80)
    screen.print(tabulate_images({**metrics, **compute_metrics(np.diag([3, 1, 0, 0]), CLASSES)}))
    text = screen.file.getvalue()  # type: ignore[attr-defined]
    assert all(part in text for part in ("road on val", "2 images, openvino, int8", "ground", "100.0", "-", "mean IoU"))


def test_read_pairs(tmp_path: Path) -> None:
    labels = np.arange(192, dtype=np.uint8).reshape(SIZE) % 12
    labels[0] = 255
    write_pair(tmp_path, "a.png", labels, split="train")
    for folder in ("train", "trainannot"):  # as macOS leaves metadata beside each file
        (tmp_path / folder / "._a.png").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        ")
    pairs = read_pairs(tmp_path, "train", classes=11)
    image, read = pairs[0]
    assert len(pairs) == 1
    assert image.shape == (*SIZE, 3)
    np.testing.assert_array_equal(read, np.where(labels < 11, labels, 255))


def test_errors_name_the_missing_file(tmp_path: Path) -> None:
    def error() -> str:
        with pytest.raises(SourceError) as caught:
            evaluate_engine(make_engine(9), tmp_path, split="val")
        return str(caught.value)

    assert f"{tmp_path / 'val'}: no such folder" in error()
    (tmp_path / "val").mkdir()
    assert f"{tmp_path / 'valannot'}: no such folder" in error()
    (tmp_path / "valannot").mkdir()
    assert "contains no PNG" in error()
    write_pair(tmp_path, "a.png", np.zeros(SIZE, np.uint8))
    write_pair(tmp_path, "b.png", np.zeros(SIZE, np.uint8))
    (tmp_path / "valannot/b.png").unlink()
    assert f"{tmp_path / 'valannot/b.png'} is missing" in error()
    (tmp_path / "val/b.png").unlink()
    (tmp_path / "val/a.png").unlink()
    write_pair(tmp_path, "c.png", np.zeros(SIZE, np.uint8))
    assert f"{tmp_path / 'val/a.png'} is missing" in error()


def test_data_with_more_classes_than_the_network_is_rejected(tmp_path: Path) -> None:
    labels = np.zeros(SIZE, np.uint8)
    labels[0], labels[1] = 4, VOID
    write_pair(tmp_path, "a.png", labels)
    assert evaluate_engine(make_engine(99), tmp_path, split="val")["pixel_accuracy"] is not None
    labels[2], labels[3] = 7, 9
    write_pair(tmp_path, "b.png", labels)
    with pytest.raises(SourceError, match=r"valannot/b\.png: label 7 is out of range; .* the network has 4 classes$"):
        evaluate_engine(make_engine(99), tmp_path, split="val")


def write_png(path: Path, rows: np.ndarray, *, bits: int, colour: int, palette: bytes = b"") -> Path:
    """Write a PNG in a format that OpenCV does not write; `rows` are the bytes of its lines."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    width = rows.shape[1] * 8 // bits
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0))
    lines = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    colours = chunk(b"PLTE", palette) if palette else b""
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + colours + chunk(b"IDAT", lines) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("bits", [1, 2, 4, 16])
def test_label_maps_with_other_than_8_bits_are_rejected(tmp_path: Path, bits: int) -> None:
    path = write_png(tmp_path / "a.png", np.full((4, 8), 0b01000001, np.uint8), bits=bits, colour=0)
    with pytest.raises(SourceError, match=rf"a\.png: {bits} bits per pixel; expected 8"):
        read_labels(path, classes=4, size=(4, 64 // bits))


def test_labels_of_a_palette_png_are_its_indices(tmp_path: Path) -> None:
    """Pascal VOC is published in this form, with 255 around the objects."""
    labels = np.random.default_rng(0).integers(0, 4, (5, 24), dtype=np.uint8)
    labels[0] = VOID
    palette = np.random.default_rng(1).integers(0, 256, 768, dtype=np.uint8).tobytes()
    read = read_labels(
        write_png(tmp_path / "a.png", labels, bits=8, colour=3, palette=palette), classes=4, size=(5, 24)
    )
    np.testing.assert_array_equal(read, labels)
    few = write_png(tmp_path / "b.png", np.packbits(labels[1:] % 2, axis=1), bits=1, colour=3, palette=palette[:6])
    np.testing.assert_array_equal(read_labels(few, classes=4, size=(4, 24)), labels[1:] % 2)
    few.write_bytes(few.read_bytes()[:60])
    with pytest.raises(SourceError, match="not a readable image"):
        read_labels(few, classes=4, size=(4, 24))


def test_errors_name_the_invalid_file(tmp_path: Path) -> None:
    image, labels = tmp_path / "image.png", tmp_path / "labels.png"
    cv2.imwrite(str(image), np.zeros((4, 6, 3), np.uint8))
    for array, reason in (
        (np.zeros((4, 6, 3), np.uint8), "3 channels"),
        (np.zeros((5, 6), np.uint8), "size 6 x 5; expected .* 6 x 4"),
    ):
        cv2.imwrite(str(labels), array)
        with pytest.raises(SourceError, match=rf"labels\.png: {reason}"):
            read_pair(image, labels, classes=4)
    labels.write_bytes(b"no image")
    with pytest.raises(SourceError, match="not a readable image"):
        read_pair(image, labels, classes=4)
