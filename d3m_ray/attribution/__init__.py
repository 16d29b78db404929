"""Checkpoints, examples and a pool to scores: one per train example and query set."""
