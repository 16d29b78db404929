"""Figures of the study, made from the stored results alone: `all_figures`, and each as files or inside a page."""

from d3m_ray.analysis.figures.catalogue import all_figures
from d3m_ray.analysis.figures.files import figure_files, svg

__all__ = ["all_figures", "figure_files", "svg"]
