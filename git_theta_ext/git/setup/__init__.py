"""What Git is told about git-theta: settings, and hooks."""
