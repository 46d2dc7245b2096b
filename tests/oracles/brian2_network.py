"""A network of leaky integrators in Brian2, run as a program of its own: `python brian2_network.py IN.npz OUT.npz`.

Brian2 may want other versions of numpy than circuitlab does, so it runs in an interpreter that has it, and nothing of
circuitlab is imported here. IN holds source, target, weight [edge], drive [unit], tau and duration in ms, dt [run] in
ms and method; OUT gets `v0`, `v1`, ... [time, unit], every 10 ms, one for each dt.
"""

from __future__ import annotations

import sys

import numpy as np

NETWORK = """
dv/dt = (-v + current + drive) / tau : 1
current : 1
drive : 1
"""


def main(given: str, output: str) -> None:
    """Run the network once for each time step."""
    import brian2
    from brian2 import ms

    brian2.prefs.codegen.target = "numpy"
    with np.load(given) as file:
        data = {name: file[name] for name in file.files}
    found = {}
    for number, dt in enumerate(data["dt"]):
        brian2.start_scope()
        clock = brian2.Clock(dt=float(dt) * ms)
        units = brian2.NeuronGroup(
            len(data["drive"]),
            NETWORK,
            method=str(data["method"]),
            clock=clock,
            namespace={"tau": float(data["tau"]) * ms},
        )
        units.drive = data["drive"]
        synapses = brian2.Synapses(
            units, units, "w : 1\ncurrent_post = w * tanh(v_pre) : 1 (summed)", clock=clock
        )
        synapses.connect(i=data["source"], j=data["target"])
        synapses.w = data["weight"]
        monitor = brian2.StateMonitor(units, "v", record=True, dt=10 * ms)
        network = brian2.Network(units, synapses, monitor)
        network.run(float(data["duration"]) * ms)
        found[f"v{number}"] = np.concatenate([monitor.v.T, np.asarray(units.v)[None]])
    np.savez(output, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
