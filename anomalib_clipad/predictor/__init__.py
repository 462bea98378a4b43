"""What scores images: models in torch and exported files behind one interface, and what they are fitted to."""
