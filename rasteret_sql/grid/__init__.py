"""Pixels, windows, polygons, coordinate systems. No I/O."""
