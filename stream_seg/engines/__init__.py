"""Engines: networks quantized or compiled for one machine, compared with float32, and kept in a cache."""
