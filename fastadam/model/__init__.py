"""What is trained: parameters, links, and where their arrays live."""
