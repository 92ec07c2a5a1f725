"""Faster forms of what networks compute; tests hold each to its plain form."""
