"""One HTML page per experiment, and one that compares those of a store; each is one file that loads nothing."""

from d3m_ray.analysis.report.index import index_page
from d3m_ray.analysis.report.page import report_page

__all__ = ["index_page", "report_page"]
