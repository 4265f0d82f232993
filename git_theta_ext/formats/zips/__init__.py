"""Zip archives, read and written so that every byte is accounted for."""
