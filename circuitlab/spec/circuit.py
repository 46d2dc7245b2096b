"""The circuit file: populations, projections, and how to read them with every mistake found in one go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PrivateAttr

from circuitlab.errors import SpecError
from circuitlab.spec.base import Model, parse, without_none
from circuitlab.spec.circuit_checks import check_circuit
from circuitlab.spec.kinds import expect
from circuitlab.spec.layers import LayerSpec
from circuitlab.spec.populations import PopulationSpec
from circuitlab.spec.projections import ConnectSpec, ProjectionSpec, WeightsSpec
from circuitlab.spec.scaling import apply_scale
from circuitlab.spec.source import Source, read


class CircuitSpec(Model):
    """A circuit: populations of neurons and the projections between them."""

    circuit: Annotated[str, Field(min_length=1)]
    """Name of the circuit."""
    description: str = ""
    """What the circuit is, in a sentence."""
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None
    """Seed of every random draw of the circuit; the experiment's seed unless given."""
    scale: Annotated[float, Field(gt=0)] = 1.0
    """Multiplies the neurons of every population but inputs and outputs; densities stay."""
    layers: dict[str, LayerSpec] = Field(default_factory=dict)
    """Depth ranges that populations lie in, by name."""
    origin: str | None = None
    """JSON file that says where an imported circuit comes from, relative to this file; `import` writes it."""
    populations: dict[str, PopulationSpec]
    """The populations, by name."""
    projections: dict[str, ProjectionSpec]
    """The projections, by name."""

    _folder: Path = PrivateAttr(default=Path())
    _where: str = PrivateAttr(default="")
    _source: Source | None = PrivateAttr(default=None)

    @property
    def folder(self) -> Path:
        """The folder that the file's paths are relative to."""
        return self._folder

    @property
    def where(self) -> str:
        """The file's name, for messages."""
        return self._where

    @property
    def inputs(self) -> list[str]:
        """Names of the input populations, in file order."""
        return [name for name, population in self.populations.items() if population.type == "input"]

    @property
    def outputs(self) -> list[str]:
        """Names of the output populations, in file order."""
        return [name for name, population in self.populations.items() if population.type == "output"]

    def located(self, text: str) -> str:
        """A message that begins with a key of this file, with the file, line and column of that key before it."""
        return text if self._source is None else self._source.located(text)

    def resolved(self) -> dict[str, Any]:
        """The whole file with every default written out; reading it gives the same circuit.

        Its numbers of neurons and synapses are the scaled ones, and it has no `scale`.
        """
        head = without_none(
            self.model_dump(mode="json", include={"circuit", "description", "seed", "origin"})
        )
        return {
            **head,
            **(
                {"layers": {name: layer.resolved() for name, layer in self.layers.items()}}
                if self.layers
                else {}
            ),
            "populations": {name: population.resolved() for name, population in self.populations.items()},
            "projections": {name: projection.resolved() for name, projection in self.projections.items()},
        }


def load_circuit(
    path: str | Path,
    *,
    text: str | None = None,
    folder: Path | None = None,
    allow_outside: bool = False,
    scale: float | None = None,
    files: bool = True,
) -> CircuitSpec:
    """Read a circuit file.

    Args:
        path: the file; only its name for messages where `text` is given.
        text: YAML to read in place of the file.
        folder: what the file's paths are relative to; the file's own folder unless given.
        allow_outside: whether files outside that folder may be read.
        scale: of the populations' sizes, in place of the file's own.
        files: whether the files that it names must be there; a run file holds what was in them.

    Raises:
        SpecError: with every mistake of the file, in file order.
    """
    source = read(path, text)
    if scale is not None:
        rescale(source, scale, "--scale")
    folder = Path(path).parent if folder is None else folder
    spec = circuit_of(source, folder, allow_outside=allow_outside, files=files)
    if spec is None or source.found:
        raise SpecError(source.problems)
    return spec


def circuit_of(
    source: Source, folder: Path, *, allow_outside: bool = False, files: bool = True
) -> CircuitSpec | None:
    """The circuit in a source that was read; its mistakes are reported to the source."""
    expect(source, "circuit")
    _sites(source.data)
    apply_scale(source)
    spec = parse(CircuitSpec, source.data, source)
    check_circuit(source, folder, allow_outside, files)
    if spec is not None:
        spec._folder, spec._where, spec._source = folder, source.name, source
    return spec


def rescale(source: Source, scale: float, name: str) -> None:
    """Put a scale in place of the file's own.

    Args:
        name: what messages call it, such as `--scale`.
    """
    expect(source, "circuit")
    source.data = {**source.data, "scale": scale}
    source.override(("scale",), name)


def _sites(data: dict[str, Any]) -> None:
    """Write the default site of every projection, which hangs on the target's type."""
    populations, projections = data.get("populations"), data.get("projections")
    if not isinstance(populations, dict) or not isinstance(projections, dict):
        return
    for projection in projections.values():
        if (
            isinstance(projection, dict)
            and "site" not in projection
            and projection.get("kind") != "electrical"
        ):
            target = (
                populations.get(projection.get("target"))
                if isinstance(projection.get("target"), str)
                else None
            )
            if isinstance(target, dict) and target.get("type") == "pyramidal":
                projection["site"] = "basal"


__all__ = [
    "CircuitSpec",
    "ConnectSpec",
    "PopulationSpec",
    "ProjectionSpec",
    "WeightsSpec",
    "circuit_of",
    "load_circuit",
    "rescale",
]
