"""What is kept of errors in this program itself."""
