"""Rendering comparisons for people."""
