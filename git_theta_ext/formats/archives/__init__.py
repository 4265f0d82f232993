"""Archives of files that are containers themselves: tar, and zip archives that store."""
