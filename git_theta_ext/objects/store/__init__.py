"""Objects on the disk: written once, whole, and checked before they are relied on."""
