"""Networks: opening them, and making a user's own ONNX portable by putting all work per pixel into its graph."""
