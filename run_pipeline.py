"""The main job: python run_pipeline.py [INPUT] [OUTPUT ...] [--config FILE]; the same as `stream-seg run`."""

import sys

from stream_seg.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
