"""What a virtual stage holds and does: steps with FLOPs, bytes and messages. Knows no cluster and no engine."""
