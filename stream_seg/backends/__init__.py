"""What computes a network, behind one interface."""
