"""Published training runs, simulated and compared with what was measured."""
