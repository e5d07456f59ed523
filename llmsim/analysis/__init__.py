"""From a trace and a program to figures: breakdown, bubbles, utilisation, traffic, metrics. Reads, never decides."""
