"""Deployment: one graph from image to score and map, without text tower, tokenizer or open_clip."""
