"""Training runs that are committed while they go on."""
