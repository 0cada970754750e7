"""The Python API: segment a video frame by frame, run the main job, run a graph, or segment one image."""
