"""Iterate over the segmented frames of a video and print the share of each class as CSV.

python examples/class_shares.py [INPUT]
"""

import sys

import numpy as np

import stream_seg

source = sys.argv[1] if len(sys.argv) > 1 else "synth://road?size=640x360&frames=30"

with stream_seg.open(source, every=3) as frames:  # the network processes every third frame
    for frame in frames:
        if frame.seq == 0:
            print("time_s", *frame.classes.names, sep=",")
        counts = np.bincount(frame.labels.ravel(), minlength=256)[: len(frame.classes)]
        print(f"{frame.time_s:.3f}", *(f"{share:.3f}" for share in counts / frame.labels.size), sep=",")
