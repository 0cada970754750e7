"""Labelled images, class tables and accuracy metrics."""
