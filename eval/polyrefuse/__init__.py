"""The package that other tools know: inspect-ai names tasks by import package, so `polyrefuse/refusal`
must lie in a package of this name. Everything else is in `polyrefuse_data` and `polyrefuse_eval`.
"""
