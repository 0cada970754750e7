"""The main job from a checkout, the same as `stream-seg run`: python run_pipeline.py [INPUT] [OUTPUT ...]."""

from stream_seg.cli.program import program

if __name__ == "__main__":
    program(only="run", name="run_pipeline.py", install="run `make demo`, then `. .venv/bin/activate`")
