"""Data modules for anomalib."""
