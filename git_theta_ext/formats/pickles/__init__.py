"""Pickles, read without executing them."""
