"""Kinds of files: arrays by key, and nothing of what they belong to."""
