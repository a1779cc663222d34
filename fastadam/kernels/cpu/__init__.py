"""The loops on the CPU: instruction sets, threads, and tables of tensors in C."""
