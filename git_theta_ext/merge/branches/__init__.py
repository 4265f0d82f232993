"""Whole branches and models: what both changed, many branches at once, the best merge."""
