"""A file as spans and literals: what the readers of containers share."""
