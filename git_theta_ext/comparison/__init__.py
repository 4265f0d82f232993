"""Comparing two versions of a checkpoint: what changed in which tensor, and how much."""
