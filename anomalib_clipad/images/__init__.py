"""The one reader: whatever holds an image, as a viewer shows it; folders of images; what tells images apart."""
