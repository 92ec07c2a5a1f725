"""Paired measurements against plain baselines; `make bench` runs them all."""
