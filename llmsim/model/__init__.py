"""The arithmetic of a model: its layers as operators with FLOPs, bytes and parameters, and published architectures."""
