"""Files that a user names: the placeholders in their paths, and writing them without loss."""
