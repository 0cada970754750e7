"""From labelled pictures to a shipped network."""
