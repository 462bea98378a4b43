"""From images to decisions: an inspector, findings, files and a page. Neither anomalib nor Lightning is needed."""
