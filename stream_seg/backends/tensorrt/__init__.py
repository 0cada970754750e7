"""TensorRT: plans for NVIDIA GPUs, compiled ahead of time."""
