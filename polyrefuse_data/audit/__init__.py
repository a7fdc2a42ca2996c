"""Audit a build: check every row again, report, calibrate thresholds, review by people."""
