"""What changed between two versions of a checkpoint, tensor by tensor, and how much."""
