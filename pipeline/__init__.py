"""The composition root: one file a stage, and what they share."""
