"""Encoders by word: `Config`, `Features`, `KIND`, `Encoder` and, if one learns, `Pretraining`."""
