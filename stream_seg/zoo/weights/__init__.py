"""Weights for a network: read from a file or fetched by torchvision's name, loaded strictly, with their input spec."""
