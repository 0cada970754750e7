"""Run an ONNX network of your own on a video: an image goes in, scores or labels for every pixel come out.

python examples/own_onnx.py MODEL.onnx CLASS,CLASS,... [INPUT [OUTPUT ...]]

docs/own_network.md lists every key, such as mean, std and the order of the colours.
"""

import sys

import stream_seg

if len(sys.argv) < 3:
    sys.exit(__doc__)
model, classes = sys.argv[1], sys.argv[2].split(",")
source = sys.argv[3] if len(sys.argv) > 3 else "synth://road?size=320x180&frames=20"
outputs = sys.argv[4:] or ["own_onnx.jsonl"]

network = {"onnx": model, "classes": classes}
report = stream_seg.run(source, *outputs, network=network)
print(f"{report.frames.written} frames at {report.fps:.0f} frames/s with {report.engine.network}")
