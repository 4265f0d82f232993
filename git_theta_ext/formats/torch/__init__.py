"""PyTorch's two containers."""
