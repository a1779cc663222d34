"""The numbers: formulas, loops and dispatch; arrays and scalars only, no objects."""
