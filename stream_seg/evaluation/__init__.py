"""What networks are worth: on labelled pictures, and over time on labelled drives."""
