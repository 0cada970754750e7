"""Segment a folder of images: one PNG label map per image, and the share of every class as a table.

python examples/folder_to_masks.py images/ masks/
"""

import sys

import stream_seg

if len(sys.argv) != 3:
    sys.exit(__doc__)
images, masks = sys.argv[1], sys.argv[2].rstrip("/")

# Images of a folder are no video: without smoothing, each is segmented on its own.
report = stream_seg.run(images, f"{masks}/", f"{masks}.jsonl", smooth=False)
print(f"{report.frames.written} label maps in {masks}/ at {report.fps:.0f} images/s")
