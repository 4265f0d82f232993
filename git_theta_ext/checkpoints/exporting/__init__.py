"""Tensors into other files than the one that they are from."""
