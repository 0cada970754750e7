"""The main job: python run_pipeline.py [INPUT] [OUTPUT ...] [--config FILE]; the same as `stream-seg run`."""

from stream_seg.cli import main

if __name__ == "__main__":
    main(only="run", program="run_pipeline.py")
