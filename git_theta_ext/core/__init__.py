"""What every room stands on: errors, limits, text, names, tensors, and the files of the disk."""
