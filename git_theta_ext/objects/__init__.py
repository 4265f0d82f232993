"""Blocks as objects: where they are kept, how they travel, which are needed and sound."""
