"""Work on the blocks of a file that any process can do which sees the file and the store."""
