"""TRAK (Park et al. 2023): kernel of projected gradients."""
