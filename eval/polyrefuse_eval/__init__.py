"""Measure how robustly a chat model refuses, in 14 languages: directions, interventions, rates.

Nothing here imports torch or transformers before it is used.
"""
