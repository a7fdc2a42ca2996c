"""Runs at addresses (S3, GCS, any that fsspec knows): read from there, and kept there file by file."""
