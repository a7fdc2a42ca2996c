"""Refusal directions: fit candidates, score them under interventions, select one."""
