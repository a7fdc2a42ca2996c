"""Harmfulness apart from refusal (Zhao et al. 2025): directions, reply inversion, the Latent Guard."""
