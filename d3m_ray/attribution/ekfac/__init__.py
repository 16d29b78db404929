"""Influence by EK-FAC (Grosse et al. 2023) over the linear layers."""
