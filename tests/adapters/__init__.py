"""Encoders outside of this repository: `make adapters` tries them with other libraries."""
