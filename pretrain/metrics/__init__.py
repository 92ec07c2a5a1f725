"""Metrics of saliency, keypoints and features."""
