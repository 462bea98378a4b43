"""Verdicts with a guarantee: conformal p-values, regions, drift. Arithmetic only."""
