"""Many simulations of one scenario: sweep, search, explain, remedies."""
