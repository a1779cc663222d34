"""What an update, and a load, is made of."""
