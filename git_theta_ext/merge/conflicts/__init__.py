"""What a merge left open: how it is said, and how it is settled."""
