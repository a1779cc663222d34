"""How two optimizers differ, as a table."""
