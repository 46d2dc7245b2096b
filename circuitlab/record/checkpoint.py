"""The state of a training run as a tree in /checkpoint, read back exactly as it was."""

from __future__ import annotations

import json
from typing import Any

import h5py
import numpy as np

from circuitlab.errors import RunFileError
from circuitlab.record.storage import link_name, store

_PAGE = 4096
_STATE = {"units": "dimensionless", "description": "a part of the training state, as `run --resume` needs it"}
_LAYOUT = {"units": "none", "description": "the tree of the training state as JSON; its arrays lie beside it"}


def freeze(tree: Any) -> tuple[str, dict[str, np.ndarray]]:
    """Takes a tree apart into JSON text and named copies of its arrays.

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
        arrays[name] = np.array(array)
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


def write(file: h5py.File, text: str, arrays: dict[str, np.ndarray], lengths: dict[str, int]) -> None:
    """Replaces /checkpoint, in place where shapes are as before.

    Args:
        lengths: rows of every growing dataset when the state was taken; a resumed run cuts them back.
    """
    group = file.require_group("checkpoint")
    state = group.require_group("state")
    present: list[str] = []
    state.visititems(lambda name, item: present.append(name) if isinstance(item, h5py.Dataset) else None)
    for name in present:
        if name not in arrays:
            del state[name]
    for name, array in arrays.items():
        store(state, name, array, _STATE, compress=False)
    for name, content, attributes in (
        ("tree", text, _LAYOUT),
        (
            "lengths",
            json.dumps(lengths, sort_keys=True),
            _LAYOUT | {"description": "rows of growing datasets at this state, as JSON"},
        ),
    ):
        data = content.encode("ascii")
        padded = np.array(
            data.ljust(-(-len(data) // _PAGE) * _PAGE), dtype=f"S{-(-len(data) // _PAGE) * _PAGE}"
        )
        if name in group and group[name].dtype != padded.dtype:  # type: ignore[union-attr]
            del group[name]
        if name in group:
            group[name][()] = padded  # type: ignore[index]
        else:
            group.create_dataset(name, data=padded, track_times=False).attrs.update(attributes)


def read(file: h5py.File) -> tuple[dict[str, Any], dict[str, int]]:
    """The tree in /checkpoint and the lengths that go with it; both empty when there is none yet."""
    if "checkpoint" not in file:
        return {}, {}
    group = file["checkpoint"]
    return thaw(group["tree"][()].decode("ascii"), group["state"]), json.loads(group["lengths"][()])  # type: ignore[index]
