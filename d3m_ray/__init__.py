"""d3m_ray: debias a text corpus by training-data attribution, as one engine on Ray."""

from d3m_ray.version import __version__

__all__ = ["__version__"]
