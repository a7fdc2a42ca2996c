"""Judges of completions: (response, language) -> refused, or None where that cannot be told."""
