"""Frames -> saliency and encoders."""
