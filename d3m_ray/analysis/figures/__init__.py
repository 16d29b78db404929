"""Figures of the study, made from the stored results alone, each as files or inside a page."""
