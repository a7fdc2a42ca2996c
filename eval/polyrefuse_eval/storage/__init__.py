"""Runs at addresses (S3, GCS, any that fsspec knows): read from there, and brought there file by file."""
