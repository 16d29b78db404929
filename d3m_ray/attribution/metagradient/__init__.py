"""Exact metagradients: derivatives of a target through the training run itself; and TracIn on the same replay."""
