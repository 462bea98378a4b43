"""Procedural parts: outlines, materials, marks, defects, light."""
