"""What is done to a batch before a network sees it: crops, augmentation, token masking."""
