"""The main job: python run_pipeline.py [INPUT] [OUTPUT ...] [--config FILE]; the same as `stream-seg run`."""

from stream_seg.cli.app import program

if __name__ == "__main__":
    program(only="run", name="run_pipeline.py")
