"""A user's own ONNX made portable: everything that is done per pixel put into its graph."""
