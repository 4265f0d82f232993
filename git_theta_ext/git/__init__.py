"""Git: its process, its repositories, what is set up in them, and the work tree."""
