"""A rank's lanes over one iteration: passes in schedule order, data loading, jitter."""
