"""Training: what CLIP-AD learns, and how clipad-mini was made."""
