"""Tensors that mean something only together: how they are called, and what quantised ones mean."""
