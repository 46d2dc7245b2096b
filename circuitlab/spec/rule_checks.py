"""What a connection rule asks of the populations it joins: sizes, shapes, positions, and partners enough."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Iterator, Mapping

from circuitlab.errors import suggestion
from circuitlab.spec import rules
from circuitlab.spec.base import listed, refuse
from circuitlab.spec.entries import Entry, Finding
from circuitlab.spec.populations import PopulationSpec
from circuitlab.spec.projections import ProjectionSpec

AXES = ("x", "y", "z")


def check_rule(
    p: ProjectionSpec,
    source: PopulationSpec | None,
    target: PopulationSpec | None,
    projections: Mapping[str, Entry],
) -> Iterator[Finding]:
    """Findings on a projection's rule; source and target are None where they could not be read."""
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
    if isinstance(rule, rules.DistanceDependent):
        yield from _check_kernel(rule)
    if source is None or target is None:
        return
    if rule.equal_sizes and source.size != target.size:
        yield (
            ("connect",),
            f"{p.connect.rule} needs populations of equal size, but '{p.source}' has {source.size}"
            " neurons and"
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
    if rule.axes is None and len(known) > 1:
        yield (
            ("connect",),
            f"'{p.source}' has positions in {sizes[p.source]} dimensions and '{p.target}' in"
            f" {sizes[p.target]};"
            " they must agree, or 'axes' say along which distance is measured",
            ("source", "target"),
        )
        return
    for name, size in sizes.items():
        for axis in rule.axes or ():
            if size is not None and axis not in AXES[:size]:
                yield (
                    ("connect", "axes"),
                    f"'{name}' has positions in {size} dimensions and no {axis}; allowed: {listed(AXES[:size])}",
                    ("source", "target"),
                )
    axes = rule.axes or (AXES[: min(known)] if known else None)
    if axes is None:
        return
    if isinstance(rule.periodic, dict):
        for axis in rule.periodic:
            if axis not in axes:
                yield (
                    ("connect", "periodic"),
                    f"distance is not measured along {axis}; allowed: {listed(axes)}",
                    ("source", "target"),
                )
    for key in ("periodic", "length", "surround_length"):
        value = getattr(rule, key)
        if isinstance(value, tuple) and len(value) != len(axes):
            count = f"{len(axes)} axes" if rule.axes else f"positions in {len(axes)} dimensions"
            one = "one per axis" if rule.axes else "one per dimension"
            yield (
                ("connect", key),
                f"{len(value)} numbers for {count}; {one} is wanted",
                ("source", "target"),
            )


def _check_kernel(rule: rules.DistanceDependent) -> Iterator[Finding]:
    """Whether the kernel has its numbers, and no others."""
    takes = {
        "table": ("points",),
        "difference_of_gaussians": ("length", "surround_length", "surround"),
    }.get(rule.kernel, ("length",))
    for key in ("length", "surround_length", "surround", "points"):
        given = getattr(rule, key) is not None
        if given and key not in takes:
            yield (
                ("connect", key),
                f"the kernel '{rule.kernel}' takes no '{key}'; it takes {listed(takes)}",
                (),
            )
        if not given and key in takes:
            yield ("connect",), f"the key '{key}' is missing; the kernel '{rule.kernel}' needs it", ()
    distances = [distance for distance, _ in rule.points or ()]
    if any(late <= early for early, late in itertools.pairwise(distances)):
        yield ("connect", "points"), "the distances do not grow; each is larger than the one before", ()
    if rule.indegree is not None and rule.p is not None:
        yield (
            ("connect", "p"),
            "with 'indegree' the chances are in proportion to the kernel, whatever 'p'; leave it out",
            (),
        )
    if rule.indegree is None and rule.allow_multapses is not None:
        yield (
            ("connect", "allow_multapses"),
            "each pair is joined at most once; 'allow_multapses' goes with 'indegree' only, leave it out",
            (),
        )


def _dimensions(population: PopulationSpec) -> int | None:
    positions = population.positions
    if positions is None or positions.file is not None:
        return None
    if positions.random is not None:
        return len(positions.random.extent) + (population.layer is not None)
    given = positions.grid or (positions.values or (None,))[0]
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
            f"'{of}' goes from '{other.get('source')}' to '{other.get('target')}', but its"
            f" transpose from '{p.source}' to"
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
                f"{rule.generator} has no argument '{name}'; allowed:"
                f" {listed(takes)}{'.' if near else ''}{near}",
                (),
            )
    for name in takes:
        required = parameters[name].default is inspect.Parameter.empty
        if required and name != "n" and name not in rule.arguments:
            yield ("connect",), f"{rule.generator} needs the argument '{name}'", ()
