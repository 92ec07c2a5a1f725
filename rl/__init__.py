"""Policies: agents, their networks, replay, and the loops that train and evaluate them."""
