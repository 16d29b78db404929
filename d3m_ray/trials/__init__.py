"""One (method, number removed, seed), its fit, and what runs many of them."""
