"""Measured tables of kernels and collectives, and the fits of catalogue constants to them."""
