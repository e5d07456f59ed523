"""Time: lanes of ops on shared resources, played on simpy. Knows nothing of transformers."""
