"""Key frames: the choice of frames on which the network runs, and the control of latency by it."""
