"""The measurements behind the numbers in the docs: cost, kernels, scale, training."""
