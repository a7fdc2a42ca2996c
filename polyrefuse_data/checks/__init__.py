"""Checks: score, then decide. Scores are stored, thresholds are data, nothing is deleted."""
