"""Transforms of a batch before the network: crops, augmentation, pairs, token masking."""
