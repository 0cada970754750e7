"""Take an image every few seconds from a recording, and label it with a network: a start for labels of your own.

python examples/prelabel_video.py drive.mp4 data/own 2

Every label map is a PNG with a palette, to be corrected in any program that keeps the palette; then train on the
folder: docs/own_data.md.
"""

import sys
from pathlib import Path

import cv2
from PIL import Image

import stream_seg

if len(sys.argv) != 4:
    sys.exit(__doc__)
recording, folder, interval_s = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
images, annotations = folder / "train", folder / "trainannot"
if images.exists() or annotations.exists():
    sys.exit(f"{images} or {annotations} exists; choose another folder")
images.mkdir(parents=True)
annotations.mkdir()

count, due_s = 0, 0.0
for frame in stream_seg.open(recording, network="road"):
    if frame.time_s < due_s:
        continue
    name = f"{Path(recording).stem}_{frame.seq:06}.png"
    cv2.imwrite(str(images / name), frame.image)
    labels = Image.fromarray(frame.labels)
    labels.putpalette([level for colour in frame.classes.colours for level in colour])  # also makes it a palette image
    labels.save(annotations / name)
    count, due_s = count + 1, due_s + interval_s
print(f"{count} images in {images}/, their label maps in {annotations}/; classes: {', '.join(frame.classes.names)}")
