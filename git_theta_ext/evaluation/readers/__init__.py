"""Results as people have them: one module for each kind of file."""
