"""A bound on the largest singular value of the recurrent weights, which keeps learning circuits settled."""

from __future__ import annotations

import torch
from torch import Tensor

from circuitlab.compile.compiled import CompiledCircuit, Link
from circuitlab.errors import CircuitError

WARM_STEPS = 3
"""Power iterations per update; the vectors are kept between updates, during which weights move little."""
COLD_STEPS = 60


class SingularValueBound:
    """Scales the recurrent weights back when their largest singular value exceeds the bound.

    The populations of one recurrent group (a strongly connected component of the rate-coded graph) share one matrix;
    all plastic projections inside the group are scaled by the same factor, so that signs and sparsity stay.

    Args:
        compiled: the circuit.
        bound: largest singular value allowed, dimensionless.

    Raises:
        CircuitError: the frozen projections of a group alone exceed the bound.
    """

    def __init__(self, compiled: CompiledCircuit, bound: float) -> None:
        self.bound = bound
        self.groups: list[list[Link]] = []
        for group in compiled.circuit.strongly_connected():
            members = set(group)
            links = [k for k in compiled.recurrent if {k.projection.source, k.projection.target} <= members]
            self.groups.append(links)
        generator = torch.Generator().manual_seed(0)
        draw = torch.randn(compiled.size, 1, generator=generator, dtype=torch.float64)
        self.vectors = [draw.to(compiled.dtype).to(compiled.device) for _ in self.groups]
        self._cold = True
        for links in self.groups:
            frozen = [link for link in links if not link.projection.plastic]
            largest, _ = _power(frozen, draw.to(compiled.dtype).to(compiled.device), COLD_STEPS)
            if largest > bound:
                names = ", ".join(link.projection.name for link in frozen)
                raise CircuitError(
                    f"learn.constrain.largest_singular_value: the frozen projections {names} alone exceed {bound:g} "
                    f"(they have {largest:.4g}); scale their weights, or raise the bound"
                )

    @torch.no_grad()
    def apply(self) -> None:
        """Bring every recurrent group within the bound."""
        for number, links in enumerate(self.groups):
            largest = self._largest(number, COLD_STEPS if self._cold else WARM_STEPS)
            plastic = [link.kernel for link in links if link.projection.plastic]
            for _ in range(50):
                if largest <= self.bound * (1 + 1e-6):
                    break
                for kernel in plastic:
                    kernel.scale_(self.bound / largest)
                if len(plastic) == len(links):
                    break
                largest = self._largest(number, WARM_STEPS)
        self._cold = False

    def _largest(self, number: int, steps: int) -> float:
        largest, self.vectors[number] = _power(self.groups[number], self.vectors[number], steps)
        return largest

    def state(self) -> dict[str, Tensor]:
        """What the next update depends on, for a checkpoint."""
        return {str(number): vector for number, vector in enumerate(self.vectors)} if not self._cold else {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        for name, vector in state.items():
            self.vectors[int(name)] = vector
        self._cold = not state


def _power(links: list[Link], vector: Tensor, steps: int) -> tuple[float, Tensor]:
    """Largest singular value of the matrix that the links make together, by power iteration from a vector, [unit, 1],
    and the vector to go on from."""
    norm = torch.zeros(())
    for _ in range(steps):
        image = torch.zeros_like(vector)
        for link in links:
            link.kernel.add_product(vector[link.source], image[link.target])
        back = torch.zeros_like(vector)
        for link in links:
            link.kernel.add_transposed(image[link.target], back[link.source])
        norm = torch.linalg.vector_norm(image) / torch.linalg.vector_norm(vector)
        size = torch.linalg.vector_norm(back)
        if not bool(size > 0):
            return 0.0, vector
        vector = back / size
    return float(norm), vector
