"""The laboratory: what measures the product, and what made clipad-mini. The wheel leaves it out."""
