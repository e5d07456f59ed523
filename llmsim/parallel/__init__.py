"""Ranks: the grid and its groups, which layers a stage holds, and pipeline schedules."""
