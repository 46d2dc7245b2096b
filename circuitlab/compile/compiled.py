"""A circuit compiled to one kernel per projection over one state of all non-input units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from circuitlab.compile.kernels import Kernel, compile_kernel
from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Circuit, Population, Projection
from circuitlab.graph.junctions import check_junctions


@dataclass(frozen=True)
class Link:
    """One projection inside the compiled state: where it reads, where it writes, and its kernel."""

    projection: Projection
    kernel: Kernel
    source: slice
    target: slice


class CompiledCircuit(nn.Module):
    """The circuit as a torch module: the parameters are the synapses' values and the biases.

    State is [unit, sample] over all non-input units, outputs last, so that y = D phi are its last rows. Inputs are
    [unit, sample] over all input populations in file order. `.to(device)`, `state_dict` and any `torch.optim`
    optimizer work; nothing here records a graph for autograd.

    Attributes:
        units: rows of each non-input population in the state.
        inputs: rows of each input population in the input.
        size, input_size, output_size: numbers of non-input, input and output units.
        feedforward: links from inputs.
        recurrent: links among units that carry rates.
        burst: links that carry the control (S of the circuit's own apical projections).
        held: links that carry rates to apical sites that are clamped (`compile/clamp.py`): nothing arrives.
        electrical: gap junctions, which act in both directions.
        sign: +1, -1 or 0 per projection: Dale's law of its source population; +1 for gap junctions.
    """

    controlled: Tensor
    tau: Tensor

    def __init__(self, circuit: Circuit, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.circuit = circuit
        hidden = [p for p in circuit.populations.values() if p.type not in ("input", "output")]
        outputs = [p for p in circuit.populations.values() if p.type == "output"]
        if not outputs:
            raise CircuitError(
                "populations: there is no output population; the loss needs one of type output"
            )
        for p in hidden + outputs:
            if not (p.gain > 0 and np.isfinite([p.gain, p.threshold]).all()):
                raise CircuitError(
                    f"populations.{p.name}: gain {p.gain:g}, threshold {p.threshold:g}; a gain is above 0, both are "
                    "finite"
                )
        self.units, self.size = _rows(hidden + outputs)
        self.inputs, self.input_size = _rows([p for p in circuit.populations.values() if p.type == "input"])
        self.outputs = {p.name: slice(0, 0) for p in outputs}
        self.output_size = sum(p.size for p in outputs)
        self.output_rows = slice(self.size - self.output_size, self.size)
        for name in self.outputs:
            rows = self.units[name]
            self.outputs[name] = slice(
                rows.start - self.output_rows.start, rows.stop - self.output_rows.start
            )

        self._kernels = nn.ModuleDict()
        self._biases = nn.ParameterDict()
        self.sign: dict[str, int] = {}
        links: list[Link] = []
        for projection in circuit.projections.values():
            source, target = circuit.populations[projection.source], circuit.populations[projection.target]
            kernel = compile_kernel(projection, (target.size, source.size), dtype)
            self._kernels[f"projection {projection.name}"] = kernel
            self.sign[projection.name] = {"excitatory": 1, "inhibitory": -1}.get(source.sign or "", 0)
            if projection.kind == "electrical":
                try:
                    check_junctions(projection, source, target)
                except CircuitError as error:
                    raise CircuitError(f"projections.{projection.name}: {error}") from error
                self.sign[projection.name] = 1
            if projection.rank is not None:
                self._check_factors(projection, kernel)
            rows = (self.inputs if source.type == "input" else self.units)[source.name]
            links.append(Link(projection, kernel, rows, self.units[target.name]))
        for population in hidden + outputs:
            if population.bias is not None:
                values = torch.as_tensor(np.array(population.bias), dtype=dtype)
                self._biases[f"bias {population.name}"] = nn.Parameter(
                    values, requires_grad=population.bias_plastic
                )
        self.links = {link.projection.name: link for link in links}
        self.feedforward = [link for link in links if link.projection.source in self.inputs]
        self.electrical = [link for link in links if link.projection.kind == "electrical"]
        chemical = [link for link in links if link.projection.kind != "electrical"]
        rates = [link for link in chemical if link.projection.source in self.units]
        self.recurrent = [link for link in rates if link.projection.carries == "rate"]
        self.burst = [link for link in rates if link.projection.carries == "burst"]
        self.held: list[Link] = []
        controlled = np.concatenate([np.full(p.size, p.controlled) for p in hidden + outputs])
        self.all_controlled = bool(controlled.all())
        self.register_buffer(
            "controlled", torch.as_tensor(controlled[:, None], dtype=dtype), persistent=False
        )
        tau = np.concatenate([np.full(p.size, p.tau_ms) for p in hidden + outputs])
        self.register_buffer("tau", torch.as_tensor(tau[:, None], dtype=dtype), persistent=False)

    def _check_factors(self, projection: Projection, kernel: Kernel) -> None:
        """Refuse factors that are not what the graph says, or that learning would take out of Dale's law."""
        where = f"projections.{projection.name}.rank"
        if self.sign[projection.name]:
            raise CircuitError(
                f"{where}: two factors cannot hold the sign of every weight (Dale's law); leave out the rank, or the "
                f"sign of '{projection.source}'"
            )
        given = projection.edges.weight
        wrong = np.abs(kernel.edge_values.double().numpy() - given).max(initial=0.0)
        if wrong > 1e-5 * np.abs(given).max(initial=0.0):
            raise CircuitError(f"{where}: the weights of its edges are not of rank {projection.rank}")

    @property
    def dtype(self) -> torch.dtype:
        return self.tau.dtype

    @property
    def device(self) -> torch.device:
        return self.tau.device

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """Values of every projection's synapses, [edge] (or [parameter] where they are shared), by its name."""
        return {name: link.kernel.values for name, link in self.links.items()}

    @property
    def biases(self) -> dict[str, nn.Parameter]:
        """Bias of every population that has one, [unit], by its name."""
        return {name.removeprefix("bias "): value for name, value in self._biases.items()}

    def parameters_by_name(self) -> dict[str, nn.Parameter]:
        """All parameters under the names of the run file: `<projection>` and `<population>_bias`."""
        return {**self.weights, **{f"{name}_bias": value for name, value in self.biases.items()}}

    def plastic(self) -> dict[str, nn.Parameter]:
        """The parameters that learning may change; burst-coded projections are feedback weights, and not among them."""
        bursts = {link.projection.name for link in self.burst}
        found = {name: value for name, value in self.parameters_by_name().items() if value.requires_grad}
        return {name: value for name, value in found.items() if name not in bursts}

    def state_by_name(self) -> dict[str, nn.Parameter]:
        """All that a checkpoint keeps: the parameters."""
        return self.parameters_by_name()

    def kernels_used(self) -> dict[str, str]:
        """Name of the kernel of every projection."""
        return {name: link.kernel.name for name, link in self.links.items()}

    @torch.no_grad()
    def drive(self, x: Tensor) -> Tensor:
        """What does not depend on the state: U x + b, shape [unit, sample], for x of shape [input unit, sample]."""
        out = torch.zeros(self.size, x.shape[1], dtype=self.dtype, device=self.device)
        for name, bias in self.biases.items():
            out[self.units[name]] += bias.detach().unsqueeze(1)
        for link in self.feedforward:
            link.kernel.add_product(x[link.source], out[link.target])
        return out

    @torch.no_grad()
    def enforce_sign(self) -> None:
        """Clamp every weight to the sign of its source population (Dale's law), and conductances to at least 0."""
        for name, link in self.links.items():
            if self.sign[name] > 0:
                link.kernel.values.clamp_(min=0)
            elif self.sign[name] < 0:
                link.kernel.values.clamp_(max=0)


def _rows(populations: list[Population]) -> tuple[dict[str, slice], int]:
    rows, start = {}, 0
    for population in populations:
        rows[population.name] = slice(start, start + population.size)
        start += population.size
    return rows, start
