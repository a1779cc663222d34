"""The commands of ``python -m fastadam``, a module each, and what they share."""
