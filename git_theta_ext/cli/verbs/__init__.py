"""The commands of `git theta`, one module each."""
