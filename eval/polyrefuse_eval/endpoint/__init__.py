"""Chat models behind an OpenAI-compatible service: what is asked, what comes back, what it costs."""
