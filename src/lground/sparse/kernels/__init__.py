"""The sparse engine on CUDA: Triton kernels that compute what the plain PyTorch modules beside them define."""
