"""Moving in and out: histories of git-lfs, plain Git, DVC and others, rewritten and back."""
