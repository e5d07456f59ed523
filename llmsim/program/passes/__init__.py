"""Steps compiled to ops: a forward or backward pass of a stage as fragments that the engine plays."""
