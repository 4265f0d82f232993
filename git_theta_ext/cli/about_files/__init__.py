"""Which files a command is about, and what it says of each."""
