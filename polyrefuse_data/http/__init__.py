"""One HTTP client for web services: deadlines, limits, and errors worth another try."""
