"""Sources of saliency by word: a file exports `Config`, `Saliency` and `fit`."""
