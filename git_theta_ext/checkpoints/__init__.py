"""Checkpoints: a file into a manifest and its objects, and back; versions, shards, companions."""
