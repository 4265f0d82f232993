"""Reports on pull requests of GitHub."""
