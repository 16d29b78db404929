"""An attribution method, an arm and a corpus for d3m_ray, a file each."""
