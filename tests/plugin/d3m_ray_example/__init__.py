"""An attribution method, an arm, a recipe and a corpus for d3m_ray, a file each."""
