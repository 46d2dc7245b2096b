"""`circuitlab bench`: what equilibria, kernels and learning cost on this machine."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from circuitlab.cli.common import AllowOutside, CircuitFile, Quiet, Scale, say, table

if TYPE_CHECKING:
    from circuitlab.bench.results import Results, Table

bench = typer.Typer(
    name="bench",
    no_args_is_help=True,
    help="Measure what equilibria, kernels and learning cost on this machine, beside their baselines.",
)

Json = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write machine, options and every raw number.")
]
Markdown = Annotated[
    Path | None, typer.Option("--markdown", metavar="FILE", help="Write the tables for a page of text.")
]
Plot = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE", help="Draw the result: .png, .svg or .pdf.")
]
Threads = Annotated[
    int | None, typer.Option(help="Threads of the CPU; two unless given, one where there are no two cores.")
]
OneThread = Annotated[int, typer.Option(help="Threads of the CPU.")]
Short = Annotated[bool, typer.Option("--short", help="A short look: fewer and smaller measurements.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything drawn.")]
Experiment = Annotated[
    Path | None,
    typer.Option(
        "--experiment", metavar="FILE", help="The experiment; experiments/mnist_recurrent.yaml unless given."
    ),
]
Alphas = Annotated[
    list[float] | None,
    typer.Option("--alpha", min=1e-9, help="Leak of the controller, per sample; 6.4 and 0.1 unless given."),
]
Steps = Annotated[
    int | None, typer.Option(min=1, help="At most so many updates in an epoch; all of them unless given.")
]
Measurement = Callable[[], "tuple[list[Table], dict[str, Any]]"]


@bench.command()
def cost(
    circuit: Annotated[
        Literal["both", "mnist", "sparse"],
        typer.Option(help="mnist: the experiment's circuit. sparse: large sparse E/I circuits."),
    ] = "both",
    experiment: Experiment = None,
    alpha: Alphas = None,
    dtype: Annotated[
        Literal["both", "float32", "float64"] | None,
        typer.Option(help="Precision, tolerance 1e-5 or 1e-6; both unless given, float32 with --short."),
    ] = None,
    batches: Annotated[int | None, typer.Option(min=1, help="Batches measured on each net; 10.")] = None,
    oracle: Annotated[
        int | None, typer.Option(min=0, help="Samples whose updates are checked on each net; 128.")
    ] = None,
    step: Annotated[
        int | None, typer.Option(min=1, help="Updates after which nets are measured; 300.")
    ] = None,
    steps: Steps = None,
    neurons: Annotated[int | None, typer.Option(min=10, help="Neurons of the sparse circuits; 5000.")] = None,
    seed: Seed = 0,
    threads: Threads = None,
    short: Short = False,
    json: Json = None,
    markdown: Markdown = None,
    plot: Plot = None,
    quiet: Quiet = False,
) -> None:
    """Least control beside recurrent backprop, on the same circuits and batches, to the same tolerance.

    Products with W per sample, iterations, time, unconverged samples: at the start, within and after an epoch of
    training by each rule; and each sample's update beside that of an independent descent in double precision.
    """
    from circuitlab.bench import cost as dense
    from circuitlab.bench import sparse
    from circuitlab.bench.nets import shipped

    alphas = tuple(alpha or (6.4, 0.1))
    chosen = dtype or ("float32" if short else "both")
    dtypes = ("float32", "float64") if chosen == "both" else (chosen,)
    least = {"batches": 3, "oracle": 32, "step": 50, "steps": 150} if short else {}
    given = {"batches": batches, "oracle": oracle, "step": step, "steps": steps}
    sizes = {**least, **{key: value for key, value in given.items() if value is not None}}
    count = _threads(threads)
    small = {"radii": (0.9,), "neurons": 2000} if short else {}
    if neurons is not None:
        small["neurons"] = neurons

    def measure() -> tuple[list[Table], dict[str, Any]]:
        tables, numbers = [], {}
        if circuit != "sparse":
            path = experiment or shipped("mnist_recurrent.yaml")
            settings = dense.Settings(path, alphas, dtypes, threads=count, seed=seed, **sizes)
            tables, numbers = dense.run(settings)
        if circuit != "mnist":
            wide = "float64" if "float64" in dtypes else "float32"
            more, others = sparse.run(sparse.Settings(alphas=alphas, dtype=wide, seed=seed, **small))
            tables, numbers = [*tables, *more], {**numbers, **others}
        return tables, numbers

    options = {
        "circuit": circuit,
        "alphas": alphas,
        "dtypes": dtypes,
        "seed": seed,
        "short": short,
        **sizes,
        **small,
    }
    _report("cost", options, count, measure, json, markdown, plot, quiet)


@bench.command()
def kernels(
    case: Annotated[
        list[str] | None, typer.Option("--case", help="A case such as 'csr 4096, 0.01'; all unless given.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Readings of each product.")] = 30,
    seed: Seed = 0,
    threads: OneThread = 1,
    short: Short = False,
    json: Json = None,
    markdown: Markdown = None,
    plot: Plot = None,
    quiet: Quiet = False,
) -> None:
    """Every kernel's products beside the matrix rate and bandwidth of this machine, and beside torch's own.

    Last, an iteration of a solver beside its products alone.
    """
    from circuitlab.bench import kernels as measured
    from circuitlab.errors import CircuitError, suggestion

    cases = tuple(case or (measured.SHORT if short else measured.CASES))
    for name in cases:
        if name not in measured.CASES:
            allowed = "; ".join(measured.CASES)
            raise CircuitError(
                f"--case: no case '{name}'; allowed: {allowed}.{suggestion(name, measured.CASES)}"
            )
    settings = measured.Settings(cases, repeats, 0.5 if short else 2.0, seed)
    options = {"cases": cases, "repeats": repeats, "seed": seed, "short": short}
    _report(
        "kernels", options, _threads(threads), lambda: measured.run(settings), json, markdown, plot, quiet
    )


@bench.command()
def scale(
    largest: Annotated[
        int | None, typer.Option(min=512, help="Neurons of the largest circuit; 32768.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Readings of each point.")] = 7,
    seed: Seed = 0,
    threads: Threads = None,
    short: Short = False,
    json: Json = None,
    markdown: Markdown = None,
    plot: Plot = None,
    quiet: Quiet = False,
) -> None:
    """How the time of a controlled solve grows with neurons, synapses, batch and iterations."""
    from circuitlab.bench import scale as measured

    limit = largest or (2048 if short else 32768)
    standard = measured.Settings(repeats=min(repeats, 3) if short else repeats, seed=seed)
    settings = measured.limited(standard, limit)
    options = {"largest": limit, "repeats": settings.repeats, "seed": seed, "short": short}
    _report("scale", options, _threads(threads), lambda: measured.run(settings), json, markdown, plot, quiet)


@bench.command()
def anatomy(
    circuit: CircuitFile,
    scale: Scale = None,
    alpha: Annotated[float, typer.Option(min=1e-9, help="Leak of the controller, per sample.")] = 1.0,
    seed: Seed = 0,
    threads: Threads = None,
    json: Json = None,
    markdown: Markdown = None,
    quiet: Quiet = False,
    allow_outside: AllowOutside = False,
) -> None:
    """Time and peak memory of a circuit file: building, compiling, both equilibria of a sample, one local update."""
    from circuitlab.bench import anatomy as measured
    from circuitlab.spec.circuit import load_circuit

    spec = load_circuit(circuit, allow_outside=allow_outside, scale=scale)
    options = {"circuit": str(circuit), "scale": spec.scale, "alpha": alpha, "seed": seed}
    _report(
        "anatomy",
        options,
        _threads(threads),
        lambda: measured.run(spec, alpha, seed),
        json,
        markdown,
        None,
        quiet,
    )


@bench.command()
def train(
    experiment: Experiment = None,
    feedforward: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Experiment of the backprop net; experiments/mnist_feedforward.yaml unless given.",
        ),
    ] = None,
    alpha: Alphas = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Number of seeds, from 0; 3.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of each training; 5.")] = None,
    steps: Steps = None,
    target: Annotated[
        list[float] | None,
        typer.Option(min=0, max=100, help="Test accuracy in percent whose time is told; 93 and 95."),
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Updates between two looks at the test samples.")] = 50,
    threads: Threads = None,
    short: Short = False,
    json: Json = None,
    markdown: Markdown = None,
    plot: Plot = None,
    quiet: Quiet = False,
) -> None:
    """How fast least control, recurrent backprop and feedforward backprop learn MNIST."""
    from circuitlab.bench import train as measured
    from circuitlab.bench.nets import shipped

    count = _threads(threads)
    methods = measured.methods(
        experiment or shipped("mnist_recurrent.yaml"),
        feedforward or shipped("mnist_feedforward.yaml"),
        tuple(alpha or (6.4, 0.1)),
    )
    settings = measured.Settings(
        methods,
        tuple(range(seeds or (1 if short else 3))),
        epochs or (1 if short else 5),
        steps or (150 if short else None),
        tuple(percent / 100 for percent in target or (93.0, 95.0)),
        every,
        count,
    )
    options = {"seeds": settings.seeds, "epochs": settings.epochs, "steps": settings.steps, "short": short}
    _report("train", options, count, lambda: measured.run(settings), json, markdown, plot, quiet)


@bench.command()
def recording(
    experiment: Experiment = None,
    population: Annotated[str, typer.Option(help="Population recorded from.")] = "recurrent",
    neurons: Annotated[int, typer.Option(min=1, help="Neurons recorded.")] = 200,
    pairs: Annotated[int | None, typer.Option(min=1, help="Stretches with and without; 40.")] = None,
    stretch: Annotated[int | None, typer.Option(min=1, help="Updates in a stretch; 100.")] = None,
    runs: Annotated[int, typer.Option(min=0, help="Whole runs of an epoch, with and without.")] = 3,
    lengths: Annotated[
        tuple[int, int] | None, typer.Option(help="Updates of two runs whose memory is compared; 500 5000.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where run files are written, and removed again.")
    ] = None,
    seed: Seed = 0,
    threads: OneThread = 1,
    short: Short = False,
    json: Json = None,
    markdown: Markdown = None,
    quiet: Quiet = False,
) -> None:
    """What recording soma, basal and apical of many neurons at every update costs, in time and in memory."""
    from circuitlab.bench import recording as measured
    from circuitlab.bench.nets import shipped

    settings = measured.Settings(
        experiment or shipped("mnist_recurrent.yaml"),
        population,
        neurons,
        stretch or (20 if short else 100),
        pairs or (4 if short else 40),
        lengths or ((50, 300) if short else (500, 5000)),
        seed,
        threads,
        folder,
        0 if short else runs,
    )
    options = {"neurons": neurons, "pairs": settings.pairs, "stretch": settings.stretch, "seed": seed}
    _report("recording", options, threads, lambda: measured.run(settings), json, markdown, None, quiet)


def _threads(asked: int | None) -> int:
    from circuitlab.bench.machine import cores

    return min(2, cores()) if asked is None else asked


def _report(
    name: str,
    options: dict[str, Any],
    threads: int,
    measure: Measurement,
    json: Path | None,
    markdown: Path | None,
    plot: Path | None,
    quiet: bool,
) -> None:
    """Measure on so many threads, print the tables, and write what was asked for."""
    from circuitlab.bench.machine import describe, pinned
    from circuitlab.bench.plots import check_suffix
    from circuitlab.bench.results import Results, as_json, check_place, write
    from circuitlab.cli.waiting import working

    for path in (json, markdown, plot):
        if path is not None:
            check_place(path)
    if plot is not None:
        check_suffix(plot)
    with pinned(threads), working(f"measuring {name}", shown=not quiet, calm=True):
        machine = describe(threads, shlex.join(["circuitlab", *sys.argv[1:]]))
        tables, numbers = measure()
    results = Results(name, options, machine, tables, numbers)
    _print(results)
    if json is not None:
        write(json, as_json(results))
        say(f"raw numbers: {json}")
    if markdown is not None:
        write(markdown, results.markdown())
        say(f"tables: {markdown}")
    if plot is not None:
        from circuitlab.bench.plots import draw

        draw(results, plot)
        say(f"picture: {plot}")


def _print(results: Results) -> None:
    say(results.headline())
    load = results.machine["load_average"]
    if load is not None and load > 0.5 * results.machine["cores"]:
        say(f"the machine was busy when this began (load {load:.2g}); times are less sure than counts")
    say("")
    for one in results.tables:
        table(one.title, one.columns, one.rows)
        if one.note:
            say(f"{one.note}\n")
