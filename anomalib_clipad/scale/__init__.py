"""The inspector on many machines, by Ray: Ray Data feeds it, and Ray tasks fit it."""
