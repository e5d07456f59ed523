"""Switches between nodes: regular (Clos, rails) and irregular ones, and which path a flow takes."""
