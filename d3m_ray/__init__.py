"""d3m_ray: debias a text corpus by training-data attribution, as one engine on Ray."""

__version__ = "0.1.0"
