"""The measured tables of README and documentation: what command and weights they come from, and writing them anew."""
