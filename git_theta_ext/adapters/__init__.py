"""Supplied updates: adapters that a trainer saved, applied to a committed checkpoint."""
