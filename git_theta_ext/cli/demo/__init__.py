"""The demonstration: a small network, and the story that is told with it."""
