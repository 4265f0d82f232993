"""A version as a folder that loads without this program, and signatures on it."""
