"""Arrays as tensors of other frameworks."""
