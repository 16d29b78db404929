"""What goes: from scores to alignment to the examples that each arm removes."""
