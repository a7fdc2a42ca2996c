"""Rows, languages, findings, errors and parsing: what every other package builds on."""
