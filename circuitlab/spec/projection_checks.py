"""What must hold for a projection: its ends, its site, its kernel, and its weights under Dale's law."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from circuitlab.spec.base import listed, refuse
from circuitlab.spec.entries import Entry, Finding
from circuitlab.spec.populations import PopulationSpec
from circuitlab.spec.projections import ProjectionSpec
from circuitlab.spec.rule_checks import check_rule
from circuitlab.spec.rules import INITS, RULES

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
    for path, message, uses in check_rule(p, source, target, projections):
        yield path, message, (*uses, "connect")
    for path, message, uses in _check_weights(p, source, target):
        yield path, message, (*uses, "weights", "connect")
    yield from _check_rank(p, source, target)
    if p.kind == "electrical":
        yield from _check_junction(p)
    allowed_kernels = {
        "one_to_one": {"diagonal"},
        "convolution": {"convolution"},
        "pool": {"convolution"},
    }.get(p.connect.rule, set())
    if p.kernel in ("diagonal", "convolution") and p.kernel not in allowed_kernels and p.kind == "chemical":
        allowed = listed(["auto", "dense", "csr", *sorted(allowed_kernels)])
        yield (
            ("kernel",),
            f"the rule {p.connect.rule} has no kernel '{p.kernel}'; allowed: {allowed}",
            ("connect",),
        )


def _check_rank(
    p: ProjectionSpec, source: PopulationSpec | None, target: PopulationSpec | None
) -> Iterator[Finding]:
    """Factors: only for a whole matrix, and never under Dale's law, which says nothing about a factor."""
    if p.rank is None:
        if p.kernel == "low_rank":
            yield ("kernel",), "low_rank needs 'rank', the number of columns of each factor", ("rank",)
        return
    if p.kernel not in ("auto", "low_rank"):
        yield (
            ("kernel",),
            f"weights of rank {p.rank} are two factors and have no kernel '{p.kernel}'; allowed: auto, low_rank",
            ("rank",),
        )
    if p.connect.rule != "all_to_all" or not p.connect.parameters.get("allow_autapses", True):
        yield (
            ("rank",),
            "a product of two factors joins every source with every target; allowed with 'rank': "
            "connect: all_to_all, with autapses",
            ("connect",),
        )
    if p.weights.init in ("zeros", "constant") and (p.weights.init == "zeros" or p.rank > 1):
        yield (
            ("rank",),
            f"the initialisation '{p.weights.init}' has a rank below {p.rank}, and factors that are zero never learn; "
            "allowed: a random initialisation, or a file",
            ("weights",),
        )
    if source is not None and source.sign is not None:
        yield (
            ("rank",),
            f"'{p.source}' is {source.sign}, and two factors cannot hold the sign of every weight (Dale's law); "
            "leave out 'rank', or the sign",
            ("source",),
        )
    if source is not None and target is not None and p.rank > min(source.size, target.size):
        yield (
            ("rank",),
            f"{p.rank} is more than a matrix of {target.size} targets and {source.size} sources can have; "
            f"allowed: 1 to {min(source.size, target.size)}",
            ("source", "target"),
        )


def _check_junction(p: ProjectionSpec) -> Iterator[Finding]:
    """Gap junctions: conductances of at least zero between somata, without shared weights, factors or delays."""
    why = "gap junctions (kind: electrical) "
    if p.site != "soma":
        yield ("site",), f"{why}join somata; allowed: soma", ("kind",)
    if p.carries != "rate":
        yield ("carries",), f"{why}carry current, not bursts; leave 'carries' out", ("kind",)
    if p.delay_ms:
        yield ("delay",), f"{why}have no delay; leave 'delay' out", ("kind",)
    if p.rank is not None:
        yield ("rank",), f"{why}are no product of factors; leave 'rank' out", ("kind",)
    if p.kernel not in ("auto", "dense", "csr"):
        yield ("kernel",), f"{why}have no kernel '{p.kernel}'; allowed: auto, dense, csr", ("kind",)
    if p.connect.rule in ("convolution", "pool", "transpose"):
        allowed = listed(name for name in RULES if name not in ("convolution", "pool", "transpose"))
        yield ("connect",), f"{why}have no rule '{p.connect.rule}'; allowed: {allowed}", ("kind",)


def _check_ends(
    p: ProjectionSpec, source: PopulationSpec | None, target: PopulationSpec | None
) -> Iterator[Finding]:
    if p.kind == "electrical" and source is not None and source.type == "input":
        yield (
            ("source",),
            f"'{p.source}' is an input, clamped to the data, and has no soma for gap junctions to join",
            ("kind",),
        )
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


def _check_weights(
    p: ProjectionSpec, source: PopulationSpec | None, target: PopulationSpec | None
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
    if p.kind == "electrical":
        yield from _check_values(p, "excitatory", "conductances are not negative; allowed: 0 or more")
    elif source is not None and source.sign is not None:
        yield from _check_sign(p, source.sign, target.sign if target is not None else None)


def _check_sign(p: ProjectionSpec, sign: str, other: str | None) -> Iterator[Finding]:
    """Dale's law against weights that are given in the file itself."""
    weights = p.weights
    bound = "0 or more" if sign == "excitatory" else "0 or less"
    allowed = f"'{p.source}' is {sign}; allowed: {bound} (Dale's law)"
    if weights.init == "transpose" and p.carries == "rate" and other not in (None, sign):
        yield (
            ("connect",),
            f"transposed weights have the sign of '{p.target}', which is {other}, but {allowed};"
            " give 'weights' of its own",
            ("source", "target"),
        )
    yield from _check_values(p, sign, allowed)


def _check_values(p: ProjectionSpec, sign: str, allowed: str) -> Iterator[Finding]:
    weights = p.weights
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
