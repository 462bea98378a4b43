"""Runs of `inspect` at random, held against a model of what has to be in their tables."""
