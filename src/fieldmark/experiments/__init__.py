"""Studies: which network and which training pay on one's own photos."""
