"""From frames to saliency sources and encoders."""
