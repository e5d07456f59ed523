"""Proof: published runs, measured tables and a user's own measurements against what is simulated."""
