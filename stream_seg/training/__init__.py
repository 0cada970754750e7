"""Training: from labelled images to a network that the pipeline runs."""
