"""Translations: the memory that keeps them, and what fills it."""
