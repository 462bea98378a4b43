"""How clipad-mini was made: pictures, captions, losses and the training loop."""
