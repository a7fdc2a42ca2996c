"""Translators: web services, OpenAI-compatible endpoints, local models."""
