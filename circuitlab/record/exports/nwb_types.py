"""pynwb's classes: it makes them from the NWB schema when it is imported, which type checkers cannot follow."""

from __future__ import annotations

from typing import Any

import pynwb
from hdmf import common, data_utils, utils
from hdmf.backends import hdf5
from pynwb import base, file

NWBFile: Any = file.NWBFile
NWBHDF5IO: Any = pynwb.NWBHDF5IO
TimeSeries: Any = base.TimeSeries
Subject: Any = file.Subject
DynamicTable: Any = common.DynamicTable
DynamicTableRegion: Any = common.DynamicTableRegion
VectorData: Any = common.VectorData
VectorIndex: Any = common.VectorIndex
H5DataIO: Any = hdf5.H5DataIO
DataChunk: Any = data_utils.DataChunk
ChunkIterator: Any = data_utils.AbstractDataChunkIterator
get_docval: Any = utils.get_docval
