"""Objects on their way from and to a remote, by Git LFS or by path."""
