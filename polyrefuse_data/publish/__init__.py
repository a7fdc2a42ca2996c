"""Publish a build to the Hugging Face Hub: plan, guard, commit, changelog."""
