"""The demonstration: a small network is really trained, and versioned with real git commands."""
