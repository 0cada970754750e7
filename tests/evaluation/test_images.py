"""The figures of `eval` against scikit-learn's, and what is refused."""

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
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score, recall_score

from stream_seg.backends.engine import Engine, EngineSpec, Images, Result
from stream_seg.datasets.labelled import read_labels, read_pair, read_pairs
from stream_seg.errors import SourceError
from stream_seg.evaluation.images import as_table, confusion, evaluate, evaluated, figures
from stream_seg.frame import EngineInfo
from stream_seg.types import VOID, Classes
from tests.support import small_networks as tiny

NAMES = ("ground", "wall", "sky", "ghost")
CLASSES = Classes(NAMES, ((0, 0, 0),) * 4)
SIZE = (12, 16)


def pair(folder: Path, name: str, labels: np.ndarray, *, split: str = "val") -> None:
    """A picture that holds its own labels in every channel, and its label map."""
    for place, array in ((split, np.dstack([labels] * 3)), (f"{split}annot", labels)):
        (folder / place).mkdir(exist_ok=True)
        assert cv2.imwrite(str(folder / place / name), array)


def seeing(error: int) -> Engine:
    """An engine that reads the labels in the picture, and is wrong in every `error`-th column."""

    def run(images: Images) -> Result:
        labels = images[..., 0].copy()
        labels[..., ::error] = (labels[..., ::error] + 1) % 3
        return Result(scores=np.stack([labels == c for c in range(4)], axis=1).astype(np.float32))

    return Engine(EngineSpec(SIZE, CLASSES, EngineInfo("fake", "none", "f32", "here")), run)


def test_figures_agree_with_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    truth = draw.integers(0, 3, (50, 60), dtype=np.uint8)
    predicted = np.where(draw.random(truth.shape) < 0.7, truth, draw.integers(0, 3, truth.shape)).astype(np.uint8)
    truth[:5] = VOID
    matrix = confusion(truth, predicted, classes=4)
    t, p = truth[truth != VOID], predicted[truth != VOID]
    np.testing.assert_array_equal(matrix[:, :4], confusion_matrix(t, p, labels=range(4)))
    found = figures(matrix, CLASSES)
    iou = jaccard_score(t, p, labels=range(3), average=None)
    np.testing.assert_allclose([found["class_iou"][name] for name in NAMES[:3]], iou)
    assert found["class_iou"]["ghost"] is None
    assert found["miou"] == pytest.approx(jaccard_score(t, p, average="macro"))
    assert found["pixel_accuracy"] == pytest.approx(accuracy_score(t, p))
    assert found["class_accuracy"] == pytest.approx(recall_score(t, p, average="macro"))


def test_a_class_that_is_only_predicted_counts_as_zero() -> None:
    truth, predicted = np.zeros((2, 2), np.uint8), np.array([[0, 0], [0, 3]], np.uint8)
    found = figures(confusion(truth, predicted, classes=4), CLASSES)
    assert found["class_iou"] == {"ground": 0.75, "wall": None, "sky": None, "ghost": 0.0}
    assert found["miou"] == pytest.approx(0.375)


def test_a_prediction_that_is_no_class_is_a_miss() -> None:
    truth, predicted = np.zeros((2, 2), np.uint8), np.array([[0, 0], [12, 255]], np.uint8)
    found = figures(confusion(truth, predicted, classes=4), CLASSES)
    assert found["class_iou"] == {"ground": 0.5, "wall": None, "sky": None, "ghost": None}
    assert found["pixel_accuracy"] == 0.5


def test_nothing_labelled_gives_no_figure() -> None:
    found = figures(np.zeros((4, 4), np.int64), CLASSES)
    assert (found["miou"], found["pixel_accuracy"], found["class_accuracy"]) == (None, None, None)


def test_a_split_is_scored_and_void_is_not(tmp_path: Path) -> None:
    labels = np.random.default_rng(1).integers(0, 3, SIZE, dtype=np.uint8)
    void = labels.copy()
    void[:, ::4] = VOID  # just where the engine is wrong
    pair(tmp_path, "b.png", labels)
    pair(tmp_path, "a.png", labels)
    found = evaluated(seeing(4), tmp_path, split="val")
    assert found["pixel_accuracy"] == pytest.approx(0.75)
    assert (found["images"], found["split"], found["network"], found["backend"]) == (2, "val", "fake", "none")
    cv2.imwrite(str(tmp_path / "valannot/a.png"), void)
    cv2.imwrite(str(tmp_path / "valannot/b.png"), void)
    assert evaluated(seeing(4), tmp_path, split="val")["pixel_accuracy"] == 1.0
    assert json.loads(json.dumps(found)) == found


def test_labels_are_scored_at_their_own_size(tmp_path: Path) -> None:
    labels = np.kron(np.arange(12, dtype=np.uint8).reshape(3, 4) % 3, np.ones((16, 16), np.uint8))
    pair(tmp_path, "a.png", labels)
    found = evaluated(seeing(99), tmp_path, split="val")
    assert found["pixel_accuracy"] > 0.8
    assert sum(confusion(labels, labels, classes=4).ravel()) == labels.size


def test_evaluate_opens_the_network_itself(tmp_path: Path) -> None:
    path = tiny.write(tmp_path, tiny.network(outputs={"out": 3}), {"classes": tiny.CLASSES})
    image = tiny.picture()
    pair(tmp_path, "a.png", np.zeros(tiny.SIZE, np.uint8))
    cv2.imwrite(str(tmp_path / "val/a.png"), image)
    found = evaluate(path, tmp_path, backend="onnxruntime")
    assert (found["network"], found["backend"], found["precision"]) == ("mine", "onnxruntime", "f32")
    assert 0 < found["pixel_accuracy"] < 1


def test_the_table_says_it_all() -> None:
    found = {"network": "road", "split": "val", "images": 2, "backend": "openvino", "precision": "int8"}
    screen = Console(file=io.StringIO(), width=80)
    screen.print(as_table({**found, **figures(np.diag([3, 1, 0, 0]), CLASSES)}))
    text = screen.file.getvalue()  # type: ignore[attr-defined]
    assert all(part in text for part in ("road on val", "2 images, openvino, int8", "ground", "100.0", "-", "mean IoU"))


def test_a_split_in_memory(tmp_path: Path) -> None:
    labels = np.arange(192, dtype=np.uint8).reshape(SIZE) % 12
    labels[0] = 255
    pair(tmp_path, "a.png", labels, split="train")
    pairs = read_pairs(tmp_path, "train", classes=11)
    image, read = pairs[0]
    assert len(pairs) == 1
    assert image.shape == (*SIZE, 3)
    np.testing.assert_array_equal(read, np.where(labels < 11, labels, 255))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    def refused() -> str:
        with pytest.raises(SourceError) as told:
            evaluated(seeing(9), tmp_path, split="val")
        return str(told.value)

    assert f"{tmp_path / 'val'}: no such folder" in refused()
    (tmp_path / "val").mkdir()
    assert f"{tmp_path / 'valannot'}: no such folder" in refused()
    (tmp_path / "valannot").mkdir()
    assert "no PNG" in refused()
    pair(tmp_path, "a.png", np.zeros(SIZE, np.uint8))
    pair(tmp_path, "b.png", np.zeros(SIZE, np.uint8))
    (tmp_path / "valannot/b.png").unlink()
    assert f"{tmp_path / 'valannot/b.png'} is missing" in refused()
    (tmp_path / "val/b.png").unlink()
    (tmp_path / "val/a.png").unlink()
    pair(tmp_path, "c.png", np.zeros(SIZE, np.uint8))
    assert f"{tmp_path / 'val/a.png'} is missing" in refused()


def test_data_of_more_classes_than_the_network_has_is_refused(tmp_path: Path) -> None:
    labels = np.zeros(SIZE, np.uint8)
    labels[0], labels[1] = 4, VOID
    pair(tmp_path, "a.png", labels)
    assert evaluated(seeing(99), tmp_path, split="val")["pixel_accuracy"] is not None
    labels[2], labels[3] = 7, 9
    pair(tmp_path, "b.png", labels)
    with pytest.raises(SourceError, match=r"valannot/b\.png: label 7 is out of range; .* the network has 4 classes$"):
        evaluated(seeing(99), tmp_path, split="val")


def png(path: Path, rows: np.ndarray, *, bits: int, colour: int, palette: bytes = b"") -> Path:
    """A PNG written by hand, in a form that OpenCV does not write; `rows` are the bytes of its lines."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        whole = kind + content
        return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))

    width = rows.shape[1] * 8 // bits
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0))
    lines = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    colours = chunk(b"PLTE", palette) if palette else b""
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + colours + chunk(b"IDAT", lines) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("bits", [1, 2, 4, 16])
def test_label_maps_of_other_than_8_bits_are_refused(tmp_path: Path, bits: int) -> None:
    path = png(tmp_path / "a.png", np.full((4, 8), 0b01000001, np.uint8), bits=bits, colour=0)
    with pytest.raises(SourceError, match=rf"a\.png: {bits} bits a pixel; a label map has 8"):
        read_labels(path, classes=4, size=(4, 64 // bits))


def test_the_labels_of_a_palette_png_are_its_indices(tmp_path: Path) -> None:
    """As Pascal VOC publishes them, 255 round the objects."""
    labels = np.random.default_rng(0).integers(0, 4, (5, 24), dtype=np.uint8)
    labels[0] = VOID
    palette = np.random.default_rng(1).integers(0, 256, 768, dtype=np.uint8).tobytes()
    read = read_labels(png(tmp_path / "a.png", labels, bits=8, colour=3, palette=palette), classes=4, size=(5, 24))
    np.testing.assert_array_equal(read, labels)
    few = png(tmp_path / "b.png", np.packbits(labels[1:] % 2, axis=1), bits=1, colour=3, palette=palette[:6])
    np.testing.assert_array_equal(read_labels(few, classes=4, size=(4, 24)), labels[1:] % 2)
    few.write_bytes(few.read_bytes()[:60])
    with pytest.raises(SourceError, match="not a picture that can be read"):
        read_labels(few, classes=4, size=(4, 24))


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    image, labels = tmp_path / "image.png", tmp_path / "labels.png"
    cv2.imwrite(str(image), np.zeros((4, 6, 3), np.uint8))
    for array, reason in (
        (np.zeros((4, 6, 3), np.uint8), "3 channels"),
        (np.zeros((5, 6), np.uint8), "6 x 5, .* 6 x 4"),
    ):
        cv2.imwrite(str(labels), array)
        with pytest.raises(SourceError, match=rf"labels\.png: {reason}"):
            read_pair(image, labels, classes=4)
    labels.write_bytes(b"no picture")
    with pytest.raises(SourceError, match="not a picture"):
        read_pair(image, labels, classes=4)
