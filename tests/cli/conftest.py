"""Files the commands are tried on."""

from __future__ import annotations

from pathlib import Path

import pytest

CORTEX = """\
circuit: cortex
description: Two pyramidal layers with PV and SST cells
populations:
  retina:  {type: input, size: 6}
  l4:      {type: pyramidal, size: 4, sign: excitatory}
  l23:     {type: pyramidal, size: 5}
  pv:      {type: interneuron, size: 2, activation: relu, sign: inhibitory}
  sst:     {type: interneuron, size: 3, activation: relu, sign: inhibitory}
  readout: {type: output, size: 2}
projections:
  retina_l4:   {source: retina, target: l4}
  l4_l23:      {source: l4, target: l23, connect: {rule: fixed_indegree, indegree: 3, allow_multapses: false}}
  l23_pv:      {source: l23, target: pv}
  pv_l23:      {source: pv, target: l23, site: soma}
  l23_sst:     {source: l23, target: sst}
  sst_l23:     {source: sst, target: l23, site: apical}
  l23_l4_fb:   {source: l23, target: l4, site: apical, carries: burst, connect: {rule: transpose, of: l4_l23}}
  l23_readout: {source: l23, target: readout}
"""

EXPERIMENT = """\
experiment: cortex_digits
circuit: cortex.yaml
data: {name: file, train: train.npz, test: test.npz}
learn: {rule: least_control, epochs: 2}
"""


@pytest.fixture
def cortex(tmp_path: Path) -> Path:
    """A small circuit with every type of population but `unit`."""
    path = tmp_path / "cortex.yaml"
    path.write_text(CORTEX, encoding="utf-8")
    return path


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A circuit with three mistakes, in lines 3, 4 and 6."""
    path = tmp_path / "broken.yaml"
    path.write_text(
        "circuit: broken\n"
        "populations:\n"
        "  retina: {type: inptu, size: 6}\n"
        "  l4: {type: output, sise: 3, size: 3}\n"
        "projections:\n"
        "  retina_l4: {source: retina, target: L4}\n",
        encoding="utf-8",
    )
    return path
