"""Collections to pixels: plan, fetch, decode, deliver."""
