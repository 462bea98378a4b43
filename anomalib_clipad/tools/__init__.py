"""The console script `anomalib-clipad`."""
