"""Vision: the staged dual path through CLIP's image tower."""
