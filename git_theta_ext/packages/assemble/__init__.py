"""Checkpoints put together of parts: of other versions, and of other repositories."""
