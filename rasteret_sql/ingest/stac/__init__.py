"""STAC: search it, read its items, make records of them."""
