"""Features: vectors of frozen networks, computed once and cached."""
