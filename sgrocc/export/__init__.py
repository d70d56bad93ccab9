"""From torch to files that run without it."""
