"""`models.toml` and `theta.lock`: which models a project needs, and which it got."""
