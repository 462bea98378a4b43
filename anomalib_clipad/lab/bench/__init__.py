"""Benchmarks: time, memory, growth and export formats, each beside a peer in the same run."""
