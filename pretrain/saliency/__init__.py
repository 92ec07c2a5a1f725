"""Saliency sources, a component a file: `Config`, `Saliency`, and `Training` or `fit`."""
