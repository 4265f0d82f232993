"""What a merge is to do with each tensor: decided before anything is written."""
