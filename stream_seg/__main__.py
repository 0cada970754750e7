"""`python -m stream_seg`, the same as `stream-seg`."""

from stream_seg.cli.program import program

if __name__ == "__main__":
    program()
