"""Measure how robustly chat models refuse harmful requests in 14 languages: directions, judges, benchmarks."""
