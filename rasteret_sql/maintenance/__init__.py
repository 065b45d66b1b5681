"""Collections kept right: refreshed and validated."""
