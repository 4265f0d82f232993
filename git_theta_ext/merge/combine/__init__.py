"""Carrying out a plan: values of the sides into values of the result."""
