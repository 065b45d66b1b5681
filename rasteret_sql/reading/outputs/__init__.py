"""What reads make of decoded tiles: one module for each form."""
