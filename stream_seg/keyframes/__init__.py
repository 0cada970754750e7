"""When the network looks: key frames, and a latency that is held."""
