"""What anomalib and Lightning ask of a model: post-processing, metrics, callbacks, checkpoints."""
