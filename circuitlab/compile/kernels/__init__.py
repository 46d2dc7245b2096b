"""Edge matrices: the product of a projection's weights with activity, its transpose, and the sampled outer product.

Activity is [unit, sample]. Every kernel holds its synapses' values in one flat parameter, in the order of `Edges`
(sorted by target, then source), so that optimizers see synapses and nothing else: a weight that is no synapse of the
graph does not exist. Kernels never use autograd.
"""

from circuitlab.compile.kernels.base import Kernel
from circuitlab.compile.kernels.selection import KERNELS, choose, compile_kernel, dense_from

__all__ = ["KERNELS", "Kernel", "choose", "compile_kernel", "dense_from"]
