"""What must hold in a scenario beyond its keys' own types: one check, one sentence."""
