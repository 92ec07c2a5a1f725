"""SPIRL: reconstruction error maps, their cache, and the selection of patches."""
