"""SPIRL: reconstruction error maps, the cache of them, and the choice of patches."""
