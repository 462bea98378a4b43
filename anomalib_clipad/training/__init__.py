"""Training of adaptors: what they learn from, their file, whether they are better than none."""
