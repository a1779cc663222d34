"""What an algorithm is, as data: its arrays, hyperparameters, scalars, and what they may be."""
