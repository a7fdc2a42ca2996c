"""Score translations with models: quality estimation, and similarity across languages."""
