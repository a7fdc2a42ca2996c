"""Published judge models, each with its own prompt template and label parser."""
