"""Adaptors: trained layers that read a frozen CLIP, each behind one interface; their losses and files."""
