"""Search: galleries, the searcher, tracks, and what belongs to an archive."""
