"""Prompts, judge and steering vectors for other evaluation tools."""
