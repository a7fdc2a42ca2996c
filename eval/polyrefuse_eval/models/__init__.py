"""A chat model: loading, templates, activations, interventions, batching and generation."""
