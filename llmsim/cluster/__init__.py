"""The cluster as links and routes: nodes, fabrics, detours, and what groups of ranks see of them."""
