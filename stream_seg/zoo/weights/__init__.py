"""Weights for a network of the zoo: from a file or by torchvision's name, loaded strictly, with what they expect."""
