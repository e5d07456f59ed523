"""Topology files of all kinds (YAML, graphs, NCCL XML) to a Topology or a graph."""
