"""Data with units and sources: GPUs, constants of kernels, collectives, memory and hosts, prices, frameworks."""
