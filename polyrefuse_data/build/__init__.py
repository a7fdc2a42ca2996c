"""Build a data set: checked rows, Parquet files, card, Croissant metadata, loader."""
