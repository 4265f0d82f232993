"""Adapters of PEFT whose updates are no plain factors; one module for each type."""
