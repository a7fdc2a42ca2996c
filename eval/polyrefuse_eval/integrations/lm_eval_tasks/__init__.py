"""Tasks for lm-evaluation-harness: `lm_eval --tasks polyrefuse --include_path FOLDER`, where `polyrefuse eval
lm-eval-path` prints the folder.

A group of one task a language; the YAML files beside this one name the functions in `scoring`.
"""
