"""Patches: commits and the objects that they need, in one file that Git knows as a bundle."""
