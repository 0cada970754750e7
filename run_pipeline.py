"""The main job from a checkout, the same as `stream-seg run`: python run_pipeline.py [INPUT] [OUTPUT ...]."""

import sys

try:
    from stream_seg.cli.app import program
except ModuleNotFoundError as error:
    if error.name is not None and error.name.startswith("stream_seg"):
        raise
    sys.exit(f"run_pipeline.py: the package {error.name} is missing; run `make demo`, then `. .venv/bin/activate`")

if __name__ == "__main__":
    program(only="run", name="run_pipeline.py")
