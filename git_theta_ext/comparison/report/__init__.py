"""A comparison as text, HTML, Markdown and records."""
