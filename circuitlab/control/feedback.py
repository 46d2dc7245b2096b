"""S: the feedback connections along which control travels from unit to unit.

psi = sigma'(phi) (S psi) + D^T u                                                              [eq. 14, 140]
Delta S = sigma(phi) psi^T - gamma S,  Delta W = psi sigma(phi)^T - gamma W                    [eq. 150, S6.4.1]
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from circuitlab.compile.compiled import Link
from circuitlab.compile.kernels import Kernel, compile_kernel
from circuitlab.control.alignment import angle, burst_angle
from circuitlab.control.base import ControlledEquations, Pathway
from circuitlab.dynamics.circuit import CircuitPoint, CircuitSystem
from circuitlab.dynamics.equations import TINY
from circuitlab.dynamics.sweep import Back, JacobiSweep, Route, Sweep
from circuitlab.dynamics.system import Point, System
from circuitlab.errors import CircuitError
from circuitlab.graph.streams import stream


class Feedback:
    """S of eq. 14, tied: the transpose of all rate-coded projections among controlled units.

    Attributes:
        name: in experiment files.
    """

    name = "tied"

    def sweep(self, system: System, drive: Tensor) -> Sweep:
        """Passes through the system on one batch with control travelling along S."""
        if isinstance(system, CircuitSystem):
            return system.along(drive, self.routes(system))
        return JacobiSweep(system, drive)

    def routes(self, system: CircuitSystem) -> dict[int, list[Back]]:
        """The ways of the control, by the first row of the population they reach."""
        return system.tied

    def raw(self, point: CircuitPoint, psi: Tensor) -> Tensor:
        """S psi, [unit, sample]."""
        return point.feedback_input(psi)

    def imbalance(self, point: Point, psi: Tensor) -> Tensor:
        """sigma'(phi) (S psi) - psi, [unit, sample], with L psi of gap junctions beside it, whatever S is."""
        if isinstance(point, CircuitPoint):
            return point.gate_imbalance(self.raw(point, psi), psi)
        return point.transported(psi) - psi

    def weights(self) -> dict[str, Tensor]:
        """Weights of its own, by projection, [edge]."""
        return {}

    def learning(self) -> dict[str, Kernel]:
        """Kernels whose weights learning may change, by projection."""
        return {}

    def hold_signs(self) -> None:
        """Bring weights of its own back to the signs that Dale's law asks of them; the transpose's are right."""

    def companions(self) -> dict[str, dict[str, Kernel]]:
        """As `Pathway.companions`."""
        return {}

    def measures(self) -> dict[str, float]:
        """As `Pathway.measures`."""
        return {}


class OwnFeedback(Feedback):
    """S of connections that are not the transpose of the circuit's.

    Args:
        ways: how each adds what it carries, and the rows it reads and reaches.
    """

    def __init__(self, system: CircuitSystem, ways: Sequence[Route]) -> None:
        self.ways = tuple(ways)
        self.planned = system.plan_back(self.ways)

    def routes(self, system: CircuitSystem) -> dict[int, list[Back]]:
        return self.planned

    def raw(self, point: CircuitPoint, psi: Tensor) -> Tensor:
        out = torch.zeros_like(psi)
        for way in self.ways:
            way.add(psi[way.source], out[way.target])
        return out


class RandomFeedback(OwnFeedback):
    """S with the transposed synapses of the circuit's rate-coded projections and random weights of its own.

    Weights of the transpose of projection p are uniform in +-1/sqrt(its mean outdegree) times `scale`, drawn from p's
    own stream. Where p's source population obeys Dale's law the weights keep p's sign, as those of W^T do.
    """

    name = "random"

    def __init__(self, system: CircuitSystem, seed: int, scale: float = 1.0) -> None:
        self.compiled = system.compiled
        self.kernels: dict[str, Kernel] = {}
        ways = []
        for link in self.compiled.recurrent:
            kernel = self.kernel(link, stream(seed, "feedback", link.projection.name), scale)
            if kernel is not None:
                self.kernels[link.projection.name] = kernel
            ways.append(Route(kernel or link.kernel, True, link.target, link.source))
        super().__init__(system, ways)

    def kernel(self, link: Link, draw: np.random.Generator, scale: float) -> Kernel | None:
        """S of one projection; None where it is the transpose itself."""
        return self.drawn(link, draw, scale, normed=False, plastic=False)

    def drawn(
        self, link: Link, draw: np.random.Generator, scale: float, *, normed: bool, plastic: bool
    ) -> Kernel:
        """Random weights on a projection's synapses.

        Args:
            normed: whether S is divided by its Frobenius norm, `scale` then being that norm.
        """
        edges, sign = link.projection.edges, self.compiled.sign[link.projection.name]
        sources = link.source.stop - link.source.start
        bound = scale / max(len(edges.source) / sources, 1.0) ** 0.5
        values = draw.uniform(
            -bound, bound, len(edges.source) if edges.parameters is None else len(edges.parameters)
        )
        values = np.abs(values) * sign if sign else values
        if normed:
            whole = values if edges.parameters is None else values[edges.parameter_index]
            values *= scale / max(float(np.linalg.norm(whole)), TINY)
        edges = (
            replace(edges, weight=values)
            if edges.parameters is None
            else replace(edges, parameters=values, weight=values[edges.parameter_index])
        )
        shape = (link.target.stop - link.target.start, sources)
        kernel = compile_kernel(
            replace(link.projection, edges=edges, plastic=plastic), shape, self.compiled.dtype
        )
        return kernel.to(self.compiled.device)

    def weights(self) -> dict[str, Tensor]:
        return {name: kernel.edge_values for name, kernel in self.kernels.items()}

    def measures(self) -> dict[str, float]:
        links = self.compiled.links
        pairs = (
            (kernel.edge_values, links[name].kernel.edge_values) for name, kernel in self.kernels.items()
        )
        return {"feedback_angle": angle(pairs)}


class KolenPollackFeedback(RandomFeedback):
    """As `RandomFeedback`, with weights that learn to align with W^T  [eq. 150].

    Each projection's S starts uniform (torch's Linear) and divided by its Frobenius norm, times `scale`. A projection
    that is not plastic has nothing to follow: its S is its transpose from the start, and stays so.

    Raises:
        CircuitError: a plastic projection's weights are a product of two thin factors.
    """

    name = "kolen_pollack"

    def kernel(self, link: Link, draw: np.random.Generator, scale: float) -> Kernel | None:
        projection = link.projection
        if not projection.plastic:
            return None
        if projection.rank is not None:
            raise CircuitError(
                f"control.feedback: kolen_pollack follows the updates of each synapse, but those of "
                f"'{projection.name}' are of two thin factors (rank: {projection.rank}); leave out the rank, or "
                "choose tied or random"
            )
        return self.drawn(link, draw, scale, normed=True, plastic=True)

    def learning(self) -> dict[str, Kernel]:
        return self.kernels

    def companions(self) -> dict[str, dict[str, Kernel]]:
        return {name: {f"S/{name}": kernel} for name, kernel in self.kernels.items()}

    def hold_signs(self) -> None:
        for name, kernel in self.kernels.items():
            if self.compiled.sign[name]:
                clamp = {"min": 0} if self.compiled.sign[name] > 0 else {"max": 0}
                kernel.values.detach().clamp_(**clamp)


class ApicalFeedback(OwnFeedback):
    """S made of the circuit's own burst-coded apical projections (supplement S6.4.1, multiplexed codes).

    Where a burst projection is plastic, its weights are among those that a rule for S may change. It mirrors the
    plastic projections that run the other way between its two populations.

    Attributes:
        mirrored: names of those, by the burst projection; empty where there are none.
    """

    name = "apical"

    def __init__(self, system: CircuitSystem) -> None:
        links = system.compiled.burst
        if not links:
            raise CircuitError(
                "control.feedback: apical needs projections with `carries: burst` onto apical sites, and the circuit "
                "has none; allowed: tied, random, kolen_pollack"
            )
        self.compiled, self.links = system.compiled, links
        self.mirrored = {
            k.projection.name: [
                other.projection.name
                for other in self.compiled.recurrent
                if (other.source, other.target) == (k.target, k.source) and other.projection.plastic
            ]
            for k in links
        }
        super().__init__(system, [Route(k.kernel, False, k.source, k.target) for k in links])

    def learning(self) -> dict[str, Kernel]:
        return {k.projection.name: k.kernel for k in self.links if k.projection.plastic}

    def companions(self) -> dict[str, dict[str, Kernel]]:
        found: dict[str, dict[str, Kernel]] = {}
        for burst, kernel in self.learning().items():
            for name in self.mirrored[burst]:
                found.setdefault(name, {})[f"S/{burst}"] = kernel
        return found

    def measures(self) -> dict[str, float]:
        return {"feedback_angle": burst_angle(self.compiled)}


class AmongUnits(Pathway):
    """A pathway in which control travels from unit to unit along a feedback S."""

    def __init__(self, feedback: Feedback) -> None:
        self.feedback = feedback

    def feedback_weights(self) -> dict[str, Tensor]:
        return {f"S/{name}": values for name, values in self.feedback.weights().items()}

    def parameters(self) -> dict[str, nn.Parameter]:
        return {f"S/{name}": kernel.values for name, kernel in self.feedback.learning().items()}

    def companions(self) -> dict[str, dict[str, Kernel]]:
        return self.feedback.companions()

    def hold_signs(self) -> None:
        self.feedback.hold_signs()

    def measures(self) -> dict[str, float]:
        return self.feedback.measures()


class EquationsAmong(ControlledEquations):
    """Equations in which control travels from unit to unit.

    Attributes:
        feedback: that it travels by.
    """

    feedback: Feedback

    @abstractmethod
    def control(self, state: Tensor, point: Point) -> Tensor:
        """psi, [unit, sample], of a state whose potentials are the point's."""

    def arriving(self, point: CircuitPoint, psi: Tensor) -> Tensor:
        """S psi, [unit, sample]."""
        return self.feedback.raw(point, psi)

    def _on_kink(self, state: Tensor) -> Tensor | None:
        """Neurons on a kink, bool [unit, sample], or None where no population has one."""
        system = self.batch.system
        if not isinstance(system, CircuitSystem) or not system.kinked:
            return None
        point = system.linearise(state[self.blocks["soma"]], self.batch.drive)
        psi = self.control(state, point)
        return point.kinks(self.arriving(point, psi), psi)

    def kinks(self, state: Tensor) -> Tensor:
        on = self._on_kink(state)
        return super().kinks(state) if on is None else on.sum(0)


def feedback(name: str, system: CircuitSystem, seed: int, options: Mapping[str, float]) -> Feedback:
    """The feedback of a name: tied, random or apical."""
    if name == "tied":
        return Feedback()
    if name == "random":
        return RandomFeedback(system, seed, **options)
    if name == "kolen_pollack":
        return KolenPollackFeedback(system, seed, **options)
    if name == "apical":
        return ApicalFeedback(system)
    raise CircuitError(
        f"control.feedback: there is no feedback '{name}' among units; allowed: tied, random, kolen_pollack, apical"
    )
