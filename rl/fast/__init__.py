"""Faster forms of the networks' arithmetic; a test compares each with its plain form."""
