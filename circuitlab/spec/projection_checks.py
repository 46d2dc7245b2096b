"""What must hold for a projection: its ends, its site, its rule's demands on sizes and shapes, its weights."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from typing import Any

from circuitlab.errors import suggestion
from circuitlab.spec import rules
from circuitlab.spec.base import listed, refuse
from circuitlab.spec.entries import Entry, Finding
from circuitlab.spec.populations import PopulationSpec
from circuitlab.spec.projections import ProjectionSpec
from circuitlab.spec.rules import INITS

SIGN = {"excitatory": 1, "inhibitory": -1}


def check_projection(
    entry: Entry, populations: Mapping[str, Entry], projections: Mapping[str, Entry]
) -> Iterator[Finding]:
    """Findings on one projection.

    Args:
        entry, populations, projections: entries of the circuit file, read as far as they can be.
    """
    raw = entry.raw if isinstance(entry.raw, dict) else {}
    for key in ("source", "target"):
        name = raw.get(key)
        if isinstance(name, str) and name not in populations:
            yield (key,), f"no population '{name}'{refuse(populations, name)}", ()
    p: ProjectionSpec | None = entry.spec
    if p is None:
        return
    source = populations[p.source].spec if p.source in populations else None
    target = populations[p.target].spec if p.target in populations else None
    unsure = {key for name in (p.source, p.target) if name in populations for key in populations[name].keys}
    yield from _check_ends(
        p, source if "type" not in unsure else None, target if "type" not in unsure else None
    )
    source, target = (None, None) if unsure else (source, target)
    for path, message, uses in _check_rule(p, source, target, projections):
        yield path, message, (*uses, "connect")
    for path, message, uses in _check_weights(p, source, projections):
        yield path, message, (*uses, "weights", "connect")
    allowed_kernels = {
        "one_to_one": {"diagonal"},
        "convolution": {"convolution"},
        "pool": {"convolution"},
    }.get(p.connect.rule, set())
    if p.kernel in ("diagonal", "convolution") and p.kernel not in allowed_kernels:
        allowed = listed(["auto", "dense", "csr", *sorted(allowed_kernels)])
        yield (
            ("kernel",),
            f"the rule {p.connect.rule} has no kernel '{p.kernel}'; allowed: {allowed}",
            ("connect",),
        )


def _check_ends(
    p: ProjectionSpec, source: PopulationSpec | None, target: PopulationSpec | None
) -> Iterator[Finding]:
    if target is not None and target.type == "input":
        yield ("target",), f"'{p.target}' is an input, clamped to the data; a projection cannot end there", ()
    elif target is not None and p.site == "apical" and target.type != "pyramidal":
        yield (
            ("site",),
            f"'{p.target}' is of type '{target.type}' and has no apical site; allowed: soma, basal (apical on"
            " pyramidal populations)",
            ("target",),
        )
    if p.carries == "burst":
        if source is not None and source.type == "input":
            yield (
                ("carries",),
                f"'{p.source}' is an input and has no control to transmit as bursts; allowed: rate",
                ("source",),
            )
        if p.site != "apical":
            yield (
                ("carries",),
                "bursts reach apical sites only; write 'site: apical', or 'carries: rate'",
                ("site",),
            )
        if p.plastic:
            yield (
                ("plastic",),
                "no rule of this version learns burst projections, they keep their weights; allowed: false",
                ("carries",),
            )


def _check_rule(
    p: ProjectionSpec,
    source: PopulationSpec | None,
    target: PopulationSpec | None,
    projections: Mapping[str, Entry],
) -> Iterator[Finding]:
    rule = p.connect.parsed()
    if rule.recurrent_only and p.source != p.target:
        yield (
            ("connect",),
            f"{p.connect.rule} joins the neurons of one population, but the source is '{p.source}' and the"
            f" target '{p.target}'",
            ("source", "target"),
        )
        return
    if isinstance(rule, rules.Transpose):
        yield from _check_transpose(p, rule.of, projections)
    if isinstance(rule, rules.Networkx):
        yield from _check_generator(rule)
    if isinstance(rule, rules.ScaleFree) and abs(rule.alpha + rule.beta + rule.gamma - 1) > 1e-9:
        total = rule.alpha + rule.beta + rule.gamma
        yield (
            ("connect",),
            f"alpha + beta + gamma is {total:g}; it must be 1 (unless given: 0.41, 0.54, 0.05)",
            (),
        )
    if source is None or target is None:
        return
    if rule.equal_sizes and source.size != target.size:
        yield (
            ("connect",),
            f"{p.connect.rule} needs populations of equal size, but '{p.source}' has {source.size} neurons and"
            f" '{p.target}' {target.size}",
            ("source", "target"),
        )
    yield from _check_counts(p, rule, source.size, target.size)
    if isinstance(rule, rules.SmallWorld) and rule.k >= source.size:
        yield (
            ("connect", "k"),
            f"k is {rule.k}, but '{p.source}' has {source.size} neurons; at most {source.size - 1}",
            ("source",),
        )
    if isinstance(rule, rules.DistanceDependent):
        yield from _check_distance(p, rule, source, target)
    if isinstance(rule, rules.Convolution | rules.Pool):
        yield from _check_window(p, rule, source, target)


def _check_counts(p: ProjectionSpec, rule: rules.Rule, sources: int, targets: int) -> Iterator[Finding]:
    """Whether as many partners can be found as the rule asks for."""
    if (
        p.source == p.target
        and sources == 1
        and getattr(rule, "allow_autapses", True) is False
        and not isinstance(rule, rules.SymmetricPairwiseBernoulli)
    ):
        yield (
            ("connect", "allow_autapses"),
            f"'{p.source}' has one neuron, and without autapses it has no partner",
            ("source",),
        )
        return
    counts = {
        rules.FixedIndegree: ("indegree", p.source, sources),
        rules.FixedOutdegree: ("outdegree", p.target, targets),
    }
    autapses = 1 if p.source == p.target and getattr(rule, "allow_autapses", True) is False else 0
    without = "without multapses and autapses" if autapses else "without multapses"
    if isinstance(rule, rules.FixedIndegree | rules.FixedOutdegree) and not rule.allow_multapses:
        key, population, size = counts[type(rule)]
        if getattr(rule, key) > size - autapses:
            yield (
                ("connect", key),
                f"{key} is {getattr(rule, key)}, but '{population}' has {size} neurons; at most"
                f" {size - autapses} {without}",
                ("source", "target"),
            )
    if isinstance(rule, rules.FixedTotalNumber) and not rule.allow_multapses:
        most = sources * targets - autapses * sources
        if most < rule.N:
            yield (
                ("connect", "N"),
                f"N is {rule.N}, but there are {most} pairs; at most {most} {without}",
                ("source", "target"),
            )


def _check_distance(
    p: ProjectionSpec, rule: rules.DistanceDependent, source: PopulationSpec, target: PopulationSpec
) -> Iterator[Finding]:
    for name, population in {p.source: source, p.target: target}.items():
        if population.positions is None:
            yield (
                ("connect",),
                f"'{name}' has no positions; distance_dependent needs 'positions' on both populations",
                ("source", "target"),
            )
    sizes = {name: _dimensions(population) for name, population in ((p.source, source), (p.target, target))}
    known = {size for size in sizes.values() if size is not None}
    if len(known) > 1:
        yield (
            ("connect",),
            f"'{p.source}' has positions in {sizes[p.source]} dimensions and '{p.target}' in {sizes[p.target]};"
            " they must agree",
            ("source", "target"),
        )
    elif rule.periodic is not None and known and len(rule.periodic) not in known:
        yield (
            ("connect", "periodic"),
            f"{len(rule.periodic)} numbers for positions in {known.pop()} dimensions; one per dimension"
            " is wanted",
            ("source", "target"),
        )


def _dimensions(population: PopulationSpec) -> int | None:
    positions = population.positions
    if positions is None or positions.file is not None:
        return None
    given = (
        positions.grid
        or (positions.random.extent if positions.random else None)
        or (positions.values or (None,))[0]
    )
    return len(given) if given is not None else None


def _check_window(
    p: ProjectionSpec, rule: rules.Convolution | rules.Pool, source: PopulationSpec, target: PopulationSpec
) -> Iterator[Finding]:
    """Whether window, stride and padding carry the source's shape into the target's."""
    padding = rule.padding if isinstance(rule, rules.Convolution) else (0, 0)
    if source.shape is None:
        yield (
            ("connect",),
            f"'{p.source}' has no shape; {p.connect.rule} needs 'shape: [channels, height, width]' on it",
            ("source", "target"),
        )
    for name, population in {p.source: source, p.target: target}.items():
        if population.shape is not None and len(population.shape) not in (2, 3):
            yield (
                ("connect",),
                f"'{name}' has the shape {list(population.shape)}; {p.connect.rule} needs"
                " [channels, height, width] or [height, width]",
                ("source", "target"),
            )
            return
    if source.shape is None:
        return
    shape = (1, *source.shape)[-3:]
    space = [shape[axis + 1] + 2 * padding[axis] for axis in (0, 1)]
    if any(rule.kernel[axis] > space[axis] for axis in (0, 1)):
        yield (
            ("connect", "kernel"),
            f"a window {list(rule.kernel)} does not fit into {space} (source and padding)",
            ("source",),
        )
        return
    made = [(space[axis] - rule.kernel[axis]) // rule.stride[axis] + 1 for axis in (0, 1)]
    channels = target.size // (made[0] * made[1]) if isinstance(rule, rules.Convolution) else shape[0]
    found = [target.size] if target.shape is None else list((1, *target.shape)[-3:])
    if math.prod(found) != channels * math.prod(made) or (target.shape is not None and found[1:] != made):
        has = f"{target.size} neurons" if target.shape is None else str(list(target.shape))
        wanted = (
            f"[channels, {made[0]}, {made[1]}]"
            if isinstance(rule, rules.Convolution)
            else str([channels, *made])
        )
        yield (
            ("connect",),
            f"{p.connect.rule} makes the shape {wanted}, but '{p.target}' has {has}; they must agree",
            ("source", "target"),
        )


def _check_transpose(p: ProjectionSpec, of: str, projections: Mapping[str, Entry]) -> Iterator[Finding]:
    path = ("connect", "of")
    if of not in projections:
        yield path, f"no projection '{of}'{refuse(projections, of)}", ()
        return
    chain, name = [], of
    while name in projections and name not in chain:
        chain.append(name)
        other = projections[name].spec
        if other is None or other is p or other.connect.rule != "transpose":
            break
        name = other.connect.parameters["of"]
    if any(projections[link].spec is p for link in chain) or name in chain[:-1]:
        yield path, f"a circle of transposes ({' -> '.join(chain)}); one of them needs a rule of its own", ()
        return
    other = projections[of].raw if isinstance(projections[of].raw, dict) else {}
    if (other.get("source"), other.get("target")) != (p.target, p.source):
        yield (
            path,
            f"'{of}' goes from '{other.get('source')}' to '{other.get('target')}', but its transpose from '{p.source}' to"
            f" '{p.target}'; a transpose goes the other way",
            ("source", "target"),
        )


def _check_generator(rule: rules.Networkx) -> Iterator[Finding]:
    """Whether networkx has the generator, and the generator these arguments."""
    import networkx

    functions = {name: getattr(networkx, name) for name in dir(networkx) if not name.startswith("_")}
    names = [
        name
        for name, function in functions.items()
        if callable(function)
        and not inspect.isclass(function)
        and str(getattr(function, "__module__", "")).startswith("networkx.generators")
        and "n" in inspect.signature(function).parameters
    ]
    if rule.generator not in names:
        near = suggestion(rule.generator, names)
        yield (
            ("connect", "generator"),
            f"networkx has no graph generator '{rule.generator}' that takes a number"
            f" of nodes n; allowed: {listed(names)}{'.' if near else ''}{near}",
            (),
        )
        return
    parameters = inspect.signature(getattr(networkx, rule.generator)).parameters
    hidden = {"seed", "create_using", "backend", "backend_kwargs"}
    takes = [
        name
        for name, parameter in parameters.items()
        if name not in hidden and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    for name in rule.arguments:
        if name == "seed":
            yield ("connect", "seed"), "the generator's seed comes from the circuit's; leave 'seed' out", ()
        elif name not in takes:
            near = suggestion(name, takes)
            yield (
                ("connect", name),
                f"{rule.generator} has no argument '{name}'; allowed: {listed(takes)}{'.' if near else ''}{near}",
                (),
            )
    for name in takes:
        required = parameters[name].default is inspect.Parameter.empty
        if required and name != "n" and name not in rule.arguments:
            yield ("connect",), f"{rule.generator} needs the argument '{name}'", ()


def _check_weights(
    p: ProjectionSpec, source: PopulationSpec | None, projections: Mapping[str, Entry]
) -> Iterator[Finding]:
    weights = p.weights
    used = INITS[weights.init]
    takes = ["init", "scale", *used, *(["file"] if weights.init == "file" else [])]
    for key in ("file", "mean", "std", "low", "high", "value", "gain"):
        if getattr(weights, key) is not None and key not in takes:
            yield (
                ("weights", key),
                f"the initialisation '{weights.init}' takes no '{key}'; allowed: {listed(takes)}",
                (),
            )
    if weights.init == "constant" and weights.value is None:
        yield ("weights",), "the initialisation 'constant' needs 'value'", ()
    if weights.init == "uniform":
        if (weights.low is None) != (weights.high is None):
            yield ("weights",), "the initialisation 'uniform' needs both 'low' and 'high', or neither", ()
        elif weights.low is not None and weights.high is not None and weights.low > weights.high:
            yield ("weights", "low"), f"low is {weights.low:g}, above high, {weights.high:g}", ()
    if weights.init == "transpose" and p.connect.rule != "transpose":
        yield (
            ("weights",),
            f"transposed weights need the rule 'transpose', but the rule is '{p.connect.rule}'; allowed:"
            f" {listed(name for name in INITS if name != 'transpose')}",
            (),
        )
    if weights.init == "file" and weights.file is None and p.connect.rule != "explicit":
        yield ("weights",), "weights from a file need 'file'", ()
    if source is not None and source.sign is not None:
        yield from _check_sign(p, source.sign, projections)


def _check_sign(p: ProjectionSpec, sign: str, projections: Mapping[str, Entry]) -> Iterator[Finding]:
    """Dale's law against weights that are given in the file itself."""
    weights = p.weights
    allowed = f"'{p.source}' is {sign}; allowed: {'0 or more' if sign == 'excitatory' else '0 or less'} (Dale's law)"
    if weights.init == "constant" and weights.value is not None and weights.value * SIGN[sign] < 0:
        yield ("weights", "value"), f"a weight of {weights.value:g}, but {allowed}", ("source",)
    if weights.init == "normal" and weights.mean is not None and weights.mean * SIGN[sign] < 0:
        yield ("weights", "mean"), f"a mean weight of {weights.mean:g}, but {allowed}", ("source",)
    if weights.init == "uniform" and weights.low is not None and weights.high is not None:
        ends = (weights.low * SIGN[sign], weights.high * SIGN[sign])
        if max(ends) <= 0 and min(ends) < 0:
            yield (
                ("weights",),
                f"weights from {weights.low:g} to {weights.high:g}, but {allowed}",
                ("source",),
            )
