"""What an algorithm is, as data: its hyperparameters, their defaults and their ranges."""
