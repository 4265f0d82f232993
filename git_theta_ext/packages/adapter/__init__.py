"""A commit as an adapter: what changed between two versions, in the files that other tools read."""
