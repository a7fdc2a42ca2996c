"""English prompts: sources, readers, recipes and splits."""
