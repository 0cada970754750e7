"""Backends: the libraries that run a network, behind one interface."""
