"""A page to try things on, served by this machine: another wording, other normal images, another threshold, at once."""
