"""Tables of scenes: find assets and footprints in them, make records of them."""
