"""One HTML page per experiment, and one that compares those of a store; each is one file that loads nothing."""
