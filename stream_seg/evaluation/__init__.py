"""Measure networks on labelled images, and their stability on labelled videos."""
