"""Everything that imports Ray: the engine, its worker pool and its sweep."""
