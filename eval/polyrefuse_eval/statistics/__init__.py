"""Rates, intervals, agreement and thresholds: pure functions of numbers."""
