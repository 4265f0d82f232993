"""What manifests and merges look like to a reader: a filter of diffs, merges by tensor."""
