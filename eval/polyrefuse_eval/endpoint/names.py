"""How the names of models behind endpoints are told from others."""

from __future__ import annotations

PREFIX = "openai:"
"""How the name of a model behind an endpoint begins."""
