"""Scoring: from features to maps and scores."""
