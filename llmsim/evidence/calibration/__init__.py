"""The few constants of a user's own cluster, fitted to what was measured there, and how well each is determined."""
