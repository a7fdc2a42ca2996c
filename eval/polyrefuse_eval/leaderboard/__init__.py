"""A leaderboard of run folders: one static page, and the same numbers as JSON, Markdown and CSV."""
