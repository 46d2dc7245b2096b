"""From what was found to a table: every measure with its standard error, what the theory asks of it, and a verdict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from circuitlab.learn.base import LearningRule
from circuitlab.learn.least_control import LeastControl
from circuitlab.theory.examine import (
    CONTROL,
    CONTROL_ZERO,
    GAUSS_NEWTON,
    LOSS,
    MINIMUM_NORM,
    Examination,
)
from circuitlab.theory.measure import FAILS, ROUGHLY, Measure, Row, above, below, large, positive, small
from circuitlab.theory.updates import Comparison

NONE, COSINE, NORM = "dimensionless", "cosine", "norm"
NEUTRAL = 1e-8
"""Real part, in 1/ms, up to which a direction counts as neutral: rounding of the differences, and what an integral
controller leaves free (the sum over classes of a softmax's u)."""
LOSS_UNITS = "nats (cross_entropy), squared units (squared_error)"


def measures(found: Examination) -> list[Measure]:
    """Every measure of an examination, those that do not apply with the reason, in the order of the table."""
    return [*_equilibria(found), *_conditions(found), *_optimality(found), *_updates(found), *_split(found)]


def _equilibria(found: Examination) -> Iterator[Measure]:
    numbers = found.numbers
    few, some = small(0.005, 0.05), "share"
    yield Row(
        "unconverged",
        "unconverged, controlled",
        some,
        "whether the controlled equilibrium was not reached to the experiment's tolerance",
        "0",
        few,
    ).of(numbers["unconverged"])
    yield Row(
        "free_unconverged",
        "unconverged, free",
        some,
        "whether the free equilibrium was not reached to the experiment's tolerance",
        "0",
        few,
    ).of(numbers["free_unconverged"])
    yield Row(
        "kinks", "neurons on a kink", "neurons", "neurons that control holds on the kink of their activation"
    ).of(numbers["kinks"])
    yield Row("free_loss", "loss, free", LOSS_UNITS, "loss L at the free equilibrium").of(
        numbers["free_loss"]
    )
    yield Row("controlled_loss", "loss, controlled", LOSS_UNITS, "loss L at the controlled equilibrium").of(
        numbers["controlled_loss"]
    )
    yield Row("control_cost", "control cost", NONE, "H = 1/2 |psi|^2 at the controlled equilibrium").of(
        numbers["control_cost"]
    )


def _conditions(found: Examination) -> Iterator[Measure]:
    numbers, alpha = found.numbers, found.task.controller.alpha
    no_q = f"{found.task.pathway.name.replace('_', ' ')} has no weights Q from the controller to every unit"
    share = large(0.95, 0.7)
    yield Row(
        "column_space",
        "Q in row space of J, controlled",
        "share",
        "|P Q| / |Q|, P onto the row space of J = D (I - W sigma')^-1 at the controlled equilibrium "
        "[LCP eq. 7, 120]",
        "1",
        share,
    ).of(numbers.get("column_space"), no_q)
    yield Row(
        "column_space_free",
        "Q in row space of J, free",
        "share",
        "the same with J at the free equilibrium [DFC Condition 2, figure 3A]",
        "1",
        share,
    ).of(numbers.get("column_space_free"), no_q)
    yield Row(
        "control_share",
        "control in row space of J",
        "share",
        "|P psi| / |psi| with J at the controlled equilibrium: what the column-space condition asks of a control",
        "1",
        share,
        "below 1 where some populations are not controlled"
        if found.task.system.controlled is not None
        else "",
    ).of(numbers["control_share"])
    yield Row(
        "norm_spread",
        "spread of layer norms",
        NONE,
        "standard deviation over populations (inputs among them, outputs not) of |r| over its mean, free equilibrium "
        "[DFC Condition 1, eq. 8]",
        "0, for Gauss-Newton",
        small(0.1, 0.5),
    ).of(numbers["norm_spread"])
    eigenvalue = Row(
        "largest_real_part",
        "largest real part, whole dynamics",
        "1/ms",
        "largest real part of the eigenvalues of units, control and controller with their time constants, linearised "
        "at the controlled equilibrium [DFC Condition 3 in general, figure 3E]; NaN for samples not looked at",
        "below 0",
        below(NEUTRAL),
    )
    if found.free.state.dtype.itemsize < 8:
        yield eigenvalue.without("its differences need dtype: float64")
    else:
        measured = eigenvalue.of(
            numbers["largest_real_part"], "every sample is unconverged or has neurons on a kink"
        )
        if measured.values is not None:
            note = f"{measured.count} samples, largest {np.nanmax(measured.values):.3g}"
            measured = replace(measured, note=note)
        yield measured
    yield Row(
        "jq",
        "smallest real part of J Q",
        NONE,
        "smallest real part of the eigenvalues of J Q at the controlled equilibrium; stable where it exceeds "
        "-alpha and the controller is slow [DFC Condition 3, Proposition 5]",
        f"above {-alpha:.3g}",
        above(-alpha),
    ).of(numbers.get("jq"), no_q)


def _optimality(found: Examination) -> Iterator[Measure]:
    numbers, task = found.numbers, found.task
    alpha = task.controller.alpha
    no_energy = (
        "H + L/alpha needs alpha > 0"
        if alpha == 0
        else "some populations are not controlled, or the circuit is too large for a descent"
    )
    yield Row(
        "energy_excess",
        "wrong equilibrium",
        "share",
        "whether descent from the free state finds a controlled equilibrium with a lower H + L/alpha than the solver "
        "(under exact dynamic inversion); NaN for samples not tried",
        "0",
        small(0.005, 0.1),
        f"{int(np.isfinite(numbers['energy_excess']).sum())} samples tried",
    ).of(numbers["energy_excess"], no_energy)
    for key, title, where, present in (
        ("", "the optimum at this alpha", f"at alpha {alpha:.3g}", True),
        ("_zero", "the optimum, alpha to 0", "as alpha goes to 0", found.optimum_zero is not None),
    ):
        why = "" if present else _no_limit(alpha)
        yield Row(
            f"control_cosine{key}",
            f"cosine with {title}",
            COSINE,
            f"cosine between psi and psi of exact (tied) dynamic inversion {where}",
            "1",
            large(0.95, 0.7) if not key else None,
        ).of(numbers.get(f"control_cosine{key}"), why)
        yield Row(
            f"distance{key}",
            f"distance from {title}",
            NONE,
            f"|psi - psi_opt| / |psi_opt|, psi_opt of exact (tied) dynamic inversion {where}",
            "0",
            small(0.05, 0.5) if not key else None,
        ).of(numbers.get(f"distance{key}"), why)


def _no_limit(alpha: float) -> str:
    if alpha == 0:
        return "alpha is 0 already"
    return "no finite output has the least loss: soft_targets or squared_error would give one"


def _updates(found: Examination) -> Iterator[Measure]:
    rule, no_limit = _name(found.rule), _no_limit(found.task.controller.alpha)
    exact = isinstance(found.rule, LeastControl) and found.rule.exact
    for key, what, asks, judge, source in (
        (LOSS, "-dL", "above 0", positive, "the loss gradient at the free equilibrium [LCP eq. 5, 89-90]"),
        (
            CONTROL,
            "-d(H + L/alpha)" if found.task.controller.alpha > 0 else "-dH, alpha 0",
            "1" if exact else "",
            large(0.95, 0.7) if exact else None,
            "the negative gradient of H + L/alpha, by exact dynamic inversion [LCP Theorem 1, section 2.4]",
        ),
        (
            CONTROL_ZERO,
            "-dH",
            "",
            None,
            "the negative gradient of H, by exact dynamic inversion with alpha = 0",
        ),
        (
            GAUSS_NEWTON,
            "Gauss-Newton",
            "1 with Conditions 1, 2, alpha to 0" if found.q is not None else "",
            None,
            "J_theta^+ delta of each sample [DFC eq. 7, Theorem 2]",
        ),
        (
            MINIMUM_NORM,
            "minimum norm",
            "1 with Condition 2, alpha to 0" if found.q is not None else "",
            None,
            "the weighted minimum-norm update up to a rate for each neuron, (J^+ delta) r^T [DFC Theorem 3, eq. 10]",
        ),
    ):
        compared = found.rule_updates
        each = Row(
            f"cosine_{key}",
            f"update and {what}",
            COSINE,
            f"cosine between the update of {rule} on each sample alone and {source}",
            asks,
            judge,
        )
        together = Row(
            f"cosine_{key}_mean",
            f"update and {what}, means",
            COSINE,
            f"cosine between the means over samples of the update of {rule} and of {source}; standard error by "
            "jackknife",
            asks if key in (LOSS, CONTROL) else "",
            judge,
        )
        if key not in compared.others:
            yield each.without(no_limit)
            yield together.without(no_limit)
        else:
            yield each.of(np.array(compared.cosines[key]))
            yield together.of_mean(*compared.mean(key))


def _split(found: Examination) -> Iterator[Measure]:
    parts, numbers = found.parts, found.numbers
    why = f"the credit of {_name(found.rule)} is no control" if not found.rule.controls else ""
    yield Row(
        "gain",
        "gain of the circuit",
        NONE,
        "|phi - phi_free| / |psi|: how far a control moves the circuit",
        note="the higher, the less control is needed, whether or not the free answer is right",
    ).of(numbers["gain"])

    lengths = {name: np.array(part.lengths) if found.rule.controls else None for name, part in parts.items()}
    yield Row("norm_update", "update's norm", NORM, "norm of the rule's update on each sample alone").of(
        np.array(found.rule_updates.lengths)
    )
    for name, words, symbol in (
        ("prediction", "prediction part", "psi sigma(phi_free)^T"),
        ("gain", "gain part", "psi (sigma(phi) - sigma(phi_free))^T"),
    ):
        yield Row(f"norm_{name}", f"norm of the {words}", NORM, f"norm of {symbol}").of(lengths[name], why)
    for name, words, symbol in (
        ("prediction", "prediction part", "psi sigma(phi_free)^T"),
        ("gain", "gain part", "psi (sigma(phi) - sigma(phi_free))^T"),
    ):
        yield from _part(parts[name], name, words, symbol, why)
    rates = Row(
        "cosine_rates",
        "psi r^T / |r|^2 and -dL",
        COSINE,
        "cosine between psi r^T, each neuron's divided by the power of its input, and the loss gradient "
        "[DFC Proposition 4]",
        asks="above 0",
        judge=positive,
    )
    yield rates.of(np.array(parts["rates"].cosines[LOSS]) if not why else None, why)


def _part(part: Comparison, name: str, words: str, symbol: str, why: str) -> Iterator[Measure]:
    each = Row(
        f"cosine_{name}",
        f"{words} and -dL",
        COSINE,
        f"cosine between {symbol} of each sample and the loss gradient",
    )
    mean = Row(
        f"cosine_{name}_mean",
        f"{words} and -dL, means",
        COSINE,
        f"cosine between the mean over samples of {symbol} and of the loss gradient; standard error by jackknife",
    )
    if why:
        yield each.without(why)
        yield mean.without(why)
    else:
        yield each.of(np.array(part.cosines[LOSS]))
        yield mean.of_mean(*part.mean(LOSS))


def _name(rule: LearningRule) -> str:
    return rule.name.replace("_", " ")


def conclusion(rows: list[Measure]) -> str:
    """A sentence on why the circuit may learn badly, or that nothing measured here says so."""
    by_key = {row.key: row for row in rows}
    reasons = list(_reasons(by_key))
    if not reasons:
        return "Nothing measured here says that this circuit should learn badly."
    return "The circuit may learn badly: " + "; ".join(reasons) + "."


def _reasons(rows: dict[str, Measure]) -> Iterator[str]:
    def value(key: str) -> float:
        return rows[key].mean

    if rows["unconverged"].verdict == FAILS or rows["free_unconverged"].verdict == FAILS:
        share = 100 * max(value("unconverged"), value("free_unconverged"))
        yield f"unconverged ({share:.1f}% of the samples do not settle and teach nothing)"
    if rows["energy_excess"].verdict == FAILS:
        share = 100 * value("energy_excess")
        yield f"wrong equilibrium (for {share:.0f}% of the samples descent finds one of lower energy)"
    if rows["largest_real_part"].verdict in (ROUGHLY, FAILS):
        yield "unstable (small pushes grow at the controlled equilibrium of some samples)"
    share, cosine = value("control_share"), value("control_cosine")
    if share < 0.7 or cosine < 0.7:
        yield (
            f"misaligned feedback (share of the control in the row space of J {share:.2f}, cosine with the optimal "
            f"control {cosine:.2f})"
        )
    gain, size = value("cosine_gain_mean"), value("norm_gain") / value("norm_prediction")
    if gain < 0 and size > 0.5:
        yield (
            f"gain (the part of the update that raises the circuit's sensitivity to control is {size:.2f} times the "
            f"other one, and its cosine with the loss gradient is {gain:.2f}; learn.presynaptic: free leaves it out)"
        )
    descent = rows["cosine_loss_gradient_mean"]
    if descent.verdict == FAILS:
        yield f"the mean update does not lower the loss (its cosine with the loss gradient is {descent.mean:.2f})"
    elif descent.mean < 0.7 and rows["cosine_control_gradient"].mean > 0.95:
        yield (
            "strong control (the update follows its objective, the control cost, whose direction is not the loss's: "
            f"cosine {descent.mean:.2f} between the means, gain of the circuit {value('gain'):.2g}; a weaker control, "
            "a larger alpha, brings them together)"
        )
