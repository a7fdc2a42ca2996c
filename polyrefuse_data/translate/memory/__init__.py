"""The translation memory: a store, its JSON Lines form, and imports from a release."""
