"""The native judge: reads refusals in 14 languages without a model."""
