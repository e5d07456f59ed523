"""From a resolved scenario to lanes of ops: stages, their passes, an iteration of them, and who is alike."""
