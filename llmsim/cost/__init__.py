"""What a kernel costs on a GPU: matrix products, attention, memory-bound kernels."""
