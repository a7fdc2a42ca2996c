"""The recipes that come with the package, and the default place of build outputs."""
