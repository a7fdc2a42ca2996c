"""Offer `polyrefuse_data.publish.local_release` under its name of version 0.1."""

from polyrefuse_data.publish.local_release import LocalRelease, build_release, results_release

__all__ = ["LocalRelease", "build_release", "results_release"]
