"""The state of a training run as a tree in /checkpoint, read back exactly as it was."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from circuitlab.errors import RunFileError
from circuitlab.record.journal import PLACE, PLACE_SIZE
from circuitlab.record.storage import link_name

_SLOTS = ("state_0", "state_1")
_TRIES = 5
_CURRENT = struct.Struct("<QQQII")  # number, place, length, checksum, checksum of these
_STATE = {
    "units": "none",
    "description": "[byte] a training state, as `run --resume` needs it; two take turns",
}
_WHICH = {"units": "none", "description": "[byte] which of the two states is the last, and its checksum"}
_PLACE = {"units": "none", "description": "[byte] where the file ended when it was last written, for repair"}


def freeze(tree: Any) -> tuple[str, dict[str, np.ndarray]]:
    """Takes a tree apart into JSON text and its arrays by name.

    Args:
        tree: nested dicts (keys str or int), lists and tuples of numpy arrays and scalars, int, float, str,
            bool, None.
    Raises:
        RunFileError: something else is in the tree.
    """
    arrays: dict[str, np.ndarray] = {}

    def keep(array: np.ndarray, path: str) -> str:
        if array.dtype.kind not in "biufc":
            raise RunFileError(f"checkpoint: {path or 'tree'}: an array of {array.dtype} cannot be kept")
        name = path or "value"
        while name in arrays:
            name += "'"
        arrays[name] = array
        return name

    def walk(node: Any, path: str) -> Any:
        if node is None or isinstance(node, bool | str) or type(node) in (int, float):
            return node
        if isinstance(node, np.ndarray):
            return {"array": keep(node, path)}
        if isinstance(node, np.generic):
            return {"scalar": keep(np.asarray(node), path)}
        inside = path + "/" if path else ""
        if isinstance(node, dict):
            for key in node:
                if not isinstance(key, str | int):
                    raise RunFileError(
                        f"checkpoint: {path or 'tree'}: a key of type {type(key).__name__} cannot be kept"
                    )
            return {"dict": [[key, walk(value, inside + link_name(str(key)))] for key, value in node.items()]}
        if isinstance(node, list | tuple):
            items = [walk(value, f"{inside}{index}") for index, value in enumerate(node)]
            return items if isinstance(node, list) else {"tuple": items}
        raise RunFileError(
            f"checkpoint: {path or 'tree'}: a value of type {type(node).__name__} cannot be kept"
        )

    return json.dumps(walk(tree, "")), arrays


def thaw(text: str, arrays: Any) -> Any:
    """Puts together what `freeze` took apart; `arrays[name][()]` gives the arrays.

    Raises:
        ValueError: it is nothing that `freeze` makes.
    """
    used: set[str] = set()

    def build(node: Any) -> Any:
        if isinstance(node, list):
            return [build(item) for item in node]
        if isinstance(node, dict):
            ((kind, content),) = node.items()
            if kind == "dict":
                return {key: build(value) for key, value in content}
            if kind == "tuple":
                return tuple(build(item) for item in content)
            if kind not in ("array", "scalar") or not isinstance(content, str) or content in used:
                raise ValueError("no tree of a checkpoint")
            used.add(content)
            value = arrays[content][()]
            return np.asarray(value) if kind == "array" else np.asarray(value)[()]
        return node

    return build(json.loads(text))


def pack(tree: Any, lengths: dict[str, int]) -> bytearray:
    """The state as bytes: the length of a JSON head, the head, and the arrays' bytes one after the other.

    Args:
        lengths: rows of every growing dataset when the state was taken; a resumed run cuts them back.
    Raises:
        RunFileError: something in the tree cannot be kept.
    """
    text, arrays = freeze(tree)
    entries = [[name, array.dtype.str, list(array.shape), array.nbytes] for name, array in arrays.items()]
    head = json.dumps({"tree": text, "lengths": lengths, "arrays": entries}, sort_keys=True).encode("ascii")
    packed = bytearray(8 + len(head) + sum(array.nbytes for array in arrays.values()))
    packed[:8] = struct.pack("<Q", len(head))
    packed[8 : 8 + len(head)] = head
    at = 8 + len(head)
    for array in arrays.values():
        packed[at : at + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        at += array.nbytes
    return packed


def _unpack(data: bytes) -> tuple[Any, dict[str, int]]:
    (size,) = struct.unpack_from("<Q", data)
    head = json.loads(data[8 : 8 + size])
    at, arrays = 8 + size, {}
    for name, kind, shape, nbytes in head["arrays"]:
        arrays[name] = np.frombuffer(data[at : at + nbytes], np.dtype(kind)).reshape(shape).copy()
        at += nbytes
    return thaw(head["tree"], arrays), head["lengths"]


def prepare(file: h5py.File, size: int) -> None:
    """Makes /checkpoint in a file that has none of this form: two places for states, and which of them holds.

    Args:
        size: bytes of the first state, from which the size of the chunks follows.
    """
    group = file.require_group("checkpoint")
    for name in ("tree", "state", "lengths") if size else ():  # of format version 1
        if name in group:
            del group[name]
    if PLACE not in file:
        # made early and empty: `Transaction` writes into it
        early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        space, kind = h5py.h5s.create_simple((PLACE_SIZE,)), h5py.h5t.NATIVE_UINT8
        place = h5py.Dataset(h5py.h5d.create(group.id, PLACE.split("/")[1].encode(), kind, space, early))
        place.attrs.update(_PLACE)
    if size and "current" not in group:
        current = group.create_dataset("current", data=np.zeros(_CURRENT.size, np.uint8), track_times=False)
        current.attrs.update(_WHICH)
        chunk = min(1 << 20, max(1 << 14, size // 8))
        for name in _SLOTS:
            slot = group.create_dataset(
                name, shape=(0,), maxshape=(None,), chunks=(chunk,), dtype=np.uint8, track_times=False
            )
            slot.attrs.update(_STATE)


def has_places(file: h5py.File) -> bool:
    """Whether there is room for states in this form."""
    return "checkpoint/current" in file


def write(file: h5py.File, packed: bytes | bytearray, free: list[tuple[int, int]] | None = None) -> None:
    """Keeps a state in the place that does not hold the last one, then says that this one holds.

    Args:
        free: gets the parts of the file that no reader will look at while they are written.
    """
    number, which = _current(file)[:2]
    which = 1 - which
    slot: Any = file[f"checkpoint/{_SLOTS[which]}"]
    chunk = slot.chunks[0]
    if free is not None:
        free[:] = []
        for start in range(0, len(slot), chunk):
            info = slot.id.get_chunk_info_by_coord((start,))
            if info.byte_offset is not None:
                free.append((info.byte_offset, info.byte_offset + info.size))
    if len(slot) < len(packed):
        slot.resize((len(packed),))
    view = memoryview(packed)
    for start in range(0, len(packed), chunk):
        slot.id.write_direct_chunk((start,), bytes(view[start : start + chunk]).ljust(chunk, b"\0"))
    if free is not None:
        free[:] = []
    body = struct.pack("<QQQI", number + 1, which, len(packed), zlib.crc32(packed))
    current: Any = file["checkpoint/current"]
    current[...] = np.frombuffer(body + struct.pack("<I", zlib.crc32(body)), np.uint8)


def _current(file: h5py.File) -> tuple[int, int, int, int]:
    """Number of the last state, its place, length and checksum; zeros where there is none."""
    data = bytes(np.asarray(file["checkpoint/current"][()]))  # type: ignore[index]
    if not any(data):
        return 0, 1, 0, 0
    number, which, size, checksum, own = _CURRENT.unpack(data)
    if own != zlib.crc32(data[:-4]) or which > 1:
        raise ValueError("the checkpoint's checksum does not fit")
    return number, which, size, checksum


def read(file: h5py.File) -> tuple[dict[str, Any], dict[str, int]]:
    """The tree in /checkpoint and the lengths that go with it; both empty when there is none yet.

    Raises:
        ValueError, KeyError, OSError: its bytes are damaged.
    """
    group: Any = file.get("checkpoint")
    if group is None or ("current" not in group and "tree" not in group):
        return {}, {}
    if "current" not in group:  # of format version 1
        return thaw(group["tree"][()].decode("ascii"), group["state"]), json.loads(group["lengths"][()])
    try:
        return _state(file)
    except (ValueError, OSError):
        # a writer may have kept two newer states meanwhile; what HDF5 remembers of the file is of no use then
        path = Path(file.filename)
        if not path.is_file():
            raise
        for attempt in range(_TRIES):
            try:
                with path.open("rb") as raw, h5py.File(raw, "r") as again:
                    return _state(again)
            except (ValueError, OSError):
                if attempt == _TRIES - 1:
                    raise
        raise


def _state(file: h5py.File) -> tuple[dict[str, Any], dict[str, int]]:
    number, which, size, checksum = _current(file)
    if number == 0:
        return {}, {}
    data = np.asarray(file[f"checkpoint/{_SLOTS[which]}"][:size]).tobytes()  # type: ignore[index]
    if len(data) != size or zlib.crc32(data) != checksum:
        raise ValueError("the checkpoint's checksum does not fit")
    return _unpack(data)


def same(first: h5py.File, second: h5py.File) -> bool:
    """Whether two files hold the same state, wherever it lies in them."""
    states = []
    for file in (first, second):
        tree, lengths = read(file)
        text, arrays = freeze(tree)
        kept = {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in arrays.items()}
        states.append((text, kept, lengths))
    return states[0] == states[1]
