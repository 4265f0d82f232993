"""Merging checkpoints: what does not collide merges exactly, what does is a conflict."""
