"""STAC and tables to collections on disk."""
