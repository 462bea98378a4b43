"""Trained layers beside the dual path: their files."""
