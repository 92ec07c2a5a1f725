"""Encoders, a component a file: `Config`, `Features`, `Encoder`, and any `Pretraining`."""
