"""Work distributed over a Ray cluster."""
