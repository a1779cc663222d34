"""The kernels on GPUs: their CUDA source, their launches and their tables."""
