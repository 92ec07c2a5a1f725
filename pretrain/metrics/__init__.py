"""How good saliency and features are."""
