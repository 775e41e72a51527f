"""Work shared over a Ray cluster."""
