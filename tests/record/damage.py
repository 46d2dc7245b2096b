"""Damaged, foreign and hostile files, made from a sound run file by a seeded generator."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import shutil
import sqlite3
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np

from circuitlab.record import checkpoint

SEAL = 56
"""Bytes of the seal behind HDF5's own end."""
V110 = ("v110", "v110")
SECRET = b"outside itself"
Edit = Callable[[h5py.File], object]


def bytewise(whole: bytes, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """Cut, flipped, overwritten, exchanged, lengthened."""
    size = len(whole)
    cuts = {
        1,
        4,
        7,
        8,
        9,
        12,
        47,
        48,
        49,
        96,
        511,
        512,
        2048,
        size // 2,
        size - 1,
        size - 2,
        size - 40,
        size - 55,
    }
    cuts |= {
        size - 57,
        size - 64,
        size - 100,
        size - 4096,
        *(chance.randrange(1, size - 60) for _ in range(60)),
    }
    for cut in sorted(cuts):
        yield f"cut at {cut}", whole[:cut]
    for count in (1, 1, 1, 1, 2, 3, 8, 64, 500) * 14:
        places = [chance.randrange(size) for _ in range(count)]
        damaged = bytearray(whole)
        for place in set(places):
            damaged[place] ^= 1 << chance.randrange(8)
        yield f"{count} bits from {places[0]}", bytes(damaged)
    for place in range(48):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << chance.randrange(8)
        yield f"superblock, byte {place}", bytes(damaged)
    for number in range(24):
        start, length = chance.randrange(size - 1), chance.choice((1, 16, 512, 4096, 30000))
        filled = {0: b"\0", 1: b"\xff", 2: bytes([chance.randrange(256)])}[number % 3] * min(
            length, size - start
        )
        damaged = whole[:start] + filled + whole[start + len(filled) :]
        if damaged != whole:
            yield f"{length} bytes overwritten at {start}", damaged
    for _ in range(8):
        one, other = sorted(chance.sample(range(1, size // 512 - 1), 2))
        blocks = [whole[start : start + 512] for start in range(0, size, 512)]
        if blocks[one] != blocks[other]:
            blocks[one], blocks[other] = blocks[other], blocks[one]
            yield f"blocks {one} and {other} exchanged", b"".join(blocks)
    for length in (1, 8, 56, 57, 4096, 100_000):
        yield f"{length} bytes behind it", whole + bytes(chance.randrange(256) for _ in range(length))
    for _ in range(6):
        place = chance.randrange(1, size - 1)
        yield (
            f"bytes pushed in at {place}",
            whole[:place] + b"\0" * chance.choice((1, 8, 512)) + whole[place:],
        )
        yield f"bytes taken out at {place}", whole[:place] + whole[place + chance.choice((1, 8, 512)) :]
    yield "twice", whole + whole


def _zipped() -> bytes:
    page = io.BytesIO()
    with zipfile.ZipFile(page, "w") as archive:
        archive.writestr("a.npy", b"x")
    return page.getvalue()


def _database(folder: Path) -> bytes:
    with sqlite3.connect(folder / "a.sqlite") as base:
        base.execute("create table a (b)")
    return (folder / "a.sqlite").read_bytes()


def other_files(folder: Path, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """Files that are no HDF5 at all."""
    yield "empty", b""
    yield "text", b"experiment: x\n"
    yield "one byte", b"\x89"
    yield "signature alone", b"\x89HDF\r\n\x1a\n"
    yield "signature and zeros", b"\x89HDF\r\n\x1a\n" + bytes(4096)
    yield "signature and noise", b"\x89HDF\r\n\x1a\n" + bytes(chance.randrange(256) for _ in range(4096))
    yield "gzip", gzip.compress(b"x" * 1000)
    yield "zip", _zipped()
    yield "sqlite", _database(folder)
    yield "png", b"\x89PNG\r\n\x1a\n" + bytes(200)
    yield "elf", b"\x7fELF" + bytes(500)
    yield "zeros", bytes(100_000)
    yield "noise", bytes(chance.randrange(256) for _ in range(20_000))
    yield "hdf4", b"\x0e\x03\x13\x01" + bytes(200)


def _other(path: Path, edit: Edit, **options: object) -> None:
    with h5py.File(path, "w", **options) as file:
        edit(file)


def _keras(file: h5py.File) -> None:
    file.attrs["keras_version"] = "3.0"
    file.create_group("model_weights/dense/dense")["kernel:0"] = np.zeros((3, 4), "f4")


def _nwb(file: h5py.File) -> None:
    file.attrs["nwb_version"], file.attrs["neurodata_type"] = "2.7.0", "NWBFile"
    series = file.create_group("acquisition/ts")
    series["data"] = np.zeros(10)
    series.attrs["electrodes"] = series["data"].ref


def _sonata(file: h5py.File) -> None:
    file.attrs["magic"], file.attrs["version"] = np.uint32(0x0A7A), np.array([0, 1], "u4")
    file["nodes/v1/node_id"] = np.arange(10)
    file["edges/v1_v1/source_node_id"] = np.arange(10)


def _netcdf(file: h5py.File) -> None:
    file.attrs["_NCProperties"] = "version=2,netcdf=4.9.2,hdf5=1.14.3"
    file["x"] = np.arange(4.0)
    file["x"].make_scale("x")


def _lookalike(file: h5py.File) -> None:
    file["spec/circuit"], file["spec/experiment"] = "circuit: x", "experiment: x"
    file["training/loss"] = np.arange(4.0)


PROGRAMS: dict[str, Edit] = {
    "keras": _keras,
    "nwb": _nwb,
    "sonata": _sonata,
    "netcdf": _netcdf,
    "plain": lambda file: file.__setitem__("x", np.arange(10)),
    "nothing in it": lambda file: None,
    "named alike": _lookalike,
    "another format": lambda file: file.attrs.update({"format": "other", "format_version": 1}),
    "format is a number": lambda file: file.attrs.update({"format": 7, "format_version": 1}),
    "format is an array": lambda file: file.attrs.update({"format": np.zeros(5), "format_version": 1}),
}


def other_programs(folder: Path) -> Iterator[tuple[str, Path]]:
    """HDF5 files of other programs, in each form that HDF5 has."""
    forms: dict[str, dict[str, object]] = {
        "old": {},
        "v108": {"libver": ("v108", "v108")},
        "v110": {"libver": V110},
        "latest": {"libver": "latest"},
        "userblock": {"userblock_size": 512},
    }
    for program, edit in PROGRAMS.items():
        for form, options in forms.items():
            path = folder / f"{program} {form}.h5"
            _other(path, edit, **options)
            if form == "userblock":
                with path.open("r+b") as file:
                    file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64")
            yield path.stem, path


def _virtual(file: h5py.File, name: str, source: str) -> None:
    layout = h5py.VirtualLayout((8,), "f8")
    layout[:] = h5py.VirtualSource(source, "x", (8,))
    file.create_virtual_dataset(name, layout)


def _nested(file: h5py.File, depth: int) -> None:
    group = file.create_group("training/deep")
    for _ in range(depth):
        group = group.create_group("a")


def _many(file: h5py.File, count: int) -> None:
    group = file.create_group("many")
    for number in range(count):
        h5py.h5g.create(group.id, str(number).encode())


def _claims(file: h5py.File, shape: tuple[int, ...], kind: str = "f8", **options: object) -> None:
    file.create_dataset("training/absurd", shape, kind, **options)


def _bomb(file: h5py.File, megabytes: int) -> None:
    """A chunk of 256 kB that unpacks to much more."""
    data = file.create_dataset("training/bomb", (65536,), "f4", chunks=(65536,), compression="gzip")
    packing = zlib.compressobj(9)
    packed = b"".join(packing.compress(bytes(1 << 20)) for _ in range(megabytes)) + packing.flush()
    data.id.write_direct_chunk((0,), packed)


def _text(file: h5py.File, name: str, value: bytes) -> None:
    """A text of any bytes."""
    if name in file:
        del file[name]
    kind = h5py.string_dtype()
    data = file.create_dataset(name, (), kind)
    data[()] = np.array(value, dtype=object)


def _replace(file: h5py.File, name: str, value: object) -> None:
    if name in file:
        del file[name]
    file[name] = value


def _vlen_attribute(file: h5py.File, name: str, value: bytes) -> None:
    file.attrs.create(name, np.array(value, dtype=object), dtype=h5py.string_dtype())


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
HOSTILE_YAML = {
    "aliases": BOMB.encode(),
    "deep": b"[" * 100_000,
    "deep maps": b"".join(b" " * i + b"a:\n" for i in range(300)),
    "long list": b"a: [" + b"1," * 3_000_000 + b"1]",
    "itself": b"a: &a [*a]\n",
    "tag": b"a: !!python/object/apply:os.system [echo]\n",
    "no mapping": b"- 1\n- 2\n",
    "number": b"7",
    "two documents": b"a: 1\n---\nb: 2\n",
    "tabs": b"a:\n\t- b\n",
    "nothing": b"",
}


def edits(outside: str) -> Iterator[tuple[str, Edit]]:
    """Changes by HDF5 itself: sound HDF5, and no sound run file.

    Args:
        outside: a file that nobody may read.
    """
    for group in ("training", "weights", "activity", "nodes", "edges", "spec", "checkpoint", "new"):

        def link(file: h5py.File, group: str = group, to: object = None) -> None:
            file.require_group(group)["elsewhere"] = to

        yield f"external link in {group}", lambda f, link=link: link(f, to=h5py.ExternalLink(outside, "/x"))
        yield f"soft link in {group}", lambda f, link=link: link(f, to=h5py.SoftLink("/nodes"))
        yield f"dangling link in {group}", lambda f, link=link: link(f, to=h5py.SoftLink("/nowhere"))
        yield f"circle in {group}", lambda f, link=link: link(f, to=f["/"])
        yield f"type in {group}", lambda f, link=link: link(f, to=np.dtype("f8"))
    yield "spec elsewhere", lambda f: _replace(f, "spec/circuit", h5py.ExternalLink(outside, "/x"))
    yield "second name", lambda f: f.__setitem__("training/second", f["training/step_loss"])
    yield "virtual", lambda f: _virtual(f, "training/x", outside)
    yield "virtual of itself", lambda f: _virtual(f, "training/x", ".")
    yield "external data", lambda f: _claims(f, (8,), external=[(outside, 0, 64)])
    yield (
        "several external files",
        lambda f: _claims(f, (16,), external=[(outside, 0, 64), ("/etc/passwd", 0, 64)]),
    )
    ref, region = h5py.ref_dtype, h5py.regionref_dtype
    yield "object reference", lambda f: f.create_dataset("training/r", data=f["training"].ref, dtype=ref)
    yield "references", lambda f: f.create_dataset("training/r", (4,), dtype=ref)
    yield (
        "region",
        lambda f: f.create_dataset("training/r", data=f["training/step_loss"].regionref[:], dtype=region),
    )
    yield "reference as attribute", lambda f: f["training"].attrs.create("r", f["nodes"].ref, dtype=ref)
    yield (
        "region as attribute",
        lambda f: f.attrs.create("r", f["training/step_loss"].regionref[:], dtype=region),
    )
    yield "compound", lambda f: f.create_dataset("training/c", (3,), [("a", "f8"), ("b", "i4")])
    yield "opaque", lambda f: f.create_dataset("training/c", (3,), "V16")
    yield "arrays", lambda f: f.create_dataset("training/c", (3,), np.dtype(("f8", (100, 100))))
    yield "ragged", lambda f: f.create_dataset("training/c", (3,), h5py.vlen_dtype("f8"))
    yield "compound attribute", lambda f: f.attrs.create("c", np.zeros(2, [("a", "f8")]))
    yield "no values", lambda f: f.create_dataset("training/e", data=h5py.Empty("f8"))
    yield "empty attribute as status", lambda f: f.attrs.__setitem__("status", h5py.Empty("f8"))
    yield "lzf", lambda f: _claims(f, (1000,), chunks=(10,), compression="lzf")
    yield "scaleoffset", lambda f: _claims(f, (1000,), "i4", chunks=(10,), scaleoffset=2)
    for key, values in {
        "status": ("done", 3, np.zeros(4), "", "complete\n"),
        "format_version": (0, -1, 3, 10**9, "x", 1.5, np.zeros(3)),
        "format": ("circuitlab", "", "circuitlab-run2", 1),
    }.items():
        for value in values:
            yield f"{key} {value!r}", lambda f, key=key, value=value: f.attrs.__setitem__(key, value)
        yield f"no {key}", lambda f, key=key: f.attrs.pop(key)
    for name in ("spec/circuit", "spec/experiment", "spec"):
        yield f"no {name}", lambda f, name=name: f.pop(name)
    for name in ("spec/circuit", "spec/experiment"):
        yield f"{name} is a number", lambda f, name=name: _replace(f, name, 3.0)
        yield f"{name} is an array", lambda f, name=name: _replace(f, name, np.zeros((3, 3)))
        yield f"{name} is a group", lambda f, name=name: (f.pop(name), f.create_group(name))
        yield f"{name} is no utf-8", lambda f, name=name: _text(f, name, b"a: \xff\xfe\xfa")
    yield "attribute no utf-8", lambda f: _vlen_attribute(f, "seed", b"\xff\xfe")
    yield "command no utf-8", lambda f: _vlen_attribute(f, "command", b"circuitlab \xc3\x28")
    yield "name with a line break", lambda f: f.__setitem__("training/a\nb", np.zeros(3))
    yield "name with escapes", lambda f: f.__setitem__("training/\x1b[2J", np.zeros(3))
    yield "exabytes", lambda f: _claims(f, (2**60,))
    yield "exabytes in chunks", lambda f: _claims(f, (2**59, 16), chunks=(1000, 16))
    yield "terabyte without chunks", lambda f: _claims(f, (10**12,), chunks=(1000,))
    yield "unlimited", lambda f: _claims(f, (2**61,), maxshape=(None,), chunks=(1000,))
    yield "gzip of nothing", lambda f: _claims(f, (10**11,), chunks=(10**6,), compression="gzip")
    yield "a gigabyte of nothing", lambda f: _claims(f, (1 << 27,))
    yield "32 axes", lambda f: _claims(f, (4,) * 32)
    yield "huge chunk", lambda f: _claims(f, (2**28,), chunks=(2**28,))
    yield "long texts", lambda f: _claims(f, (10,), "S100000000")
    yield "deep groups", lambda f: _nested(f, 2000)
    yield "60,000 groups", lambda f: _many(f, 60_000)
    yield "2,000 attributes", lambda f: [f["training"].attrs.__setitem__(f"a{n}", n) for n in range(2000)]
    yield "huge attribute", lambda f: f.attrs.__setitem__("big", np.zeros(4_000_000))
    yield "huge text attribute", lambda f: _vlen_attribute(f, "big", b"x" * 3_000_000)


def spec_edits() -> Iterator[tuple[str, Edit]]:
    """Specifications that are hostile, for commands that read them."""
    for name, text in HOSTILE_YAML.items():
        for part in ("circuit", "experiment"):
            yield f"{part}: {name}", lambda f, part=part, text=text: _text(f, f"spec/{part}", text)


def structure_edits() -> Iterator[tuple[str, Edit]]:
    """Parts that are missing or of another form, for commands that build the circuit."""
    edge, node = "edges/h_h", "nodes/h"
    yield "no nodes", lambda f: f.pop("nodes")
    yield "no edges", lambda f: f.pop("edges")
    yield "no population", lambda f: f.pop(node)
    yield "no source ids", lambda f: f.pop(f"{edge}/source_node_id")
    yield "no weights", lambda f: f.pop(f"{edge}/0/syn_weight")
    yield "no attributes", lambda f: f[edge].attrs.pop("source")
    yield "unknown population", lambda f: f[edge].attrs.__setitem__("source", "nobody")
    yield "type a number", lambda f: f[node].attrs.__setitem__("type", 7)
    yield "size wrong", lambda f: f[node].attrs.__setitem__("size", 10**9)
    yield "size negative", lambda f: f[node].attrs.__setitem__("size", -1)
    yield "size text", lambda f: f[node].attrs.__setitem__("size", "many")
    yield "bias short", lambda f: _replace(f, f"{node}/0/bias", np.zeros(2))
    yield "bias text", lambda f: _replace(f, f"{node}/0/bias", "none")
    yield "ids beyond", lambda f: f[f"{edge}/source_node_id"].__setitem__(0, 10**6)
    yield "ids below", lambda f: f[f"{edge}/target_node_id"].__setitem__(0, -5)
    yield "ids of another length", lambda f: _replace(f, f"{edge}/source_node_id", np.arange(3))
    yield "ids in a table", lambda f: _replace(f, f"{edge}/source_node_id", np.zeros((3, 3), "i8"))
    yield (
        "ids in disorder",
        lambda f: _replace(f, f"{edge}/target_node_id", f[f"{edge}/target_node_id"][:][::-1]),
    )
    yield "weights are nan", lambda f: f[f"{edge}/0/syn_weight"].__setitem__(0, np.nan)
    yield "weights are text", lambda f: _replace(f, f"{edge}/0/syn_weight", "heavy")


def checkpoint_edits() -> Iterator[tuple[str, Edit]]:
    """Training states of another form, with checksums that fit, for commands that go on from them."""

    def state(file: h5py.File, tree: object, arrays: object = ()) -> None:
        text = tree if isinstance(tree, str) else json.dumps(tree)
        head = json.dumps({"tree": text, "lengths": {}, "arrays": list(arrays)}).encode()
        checkpoint.write(file, bytearray(struct.pack("<Q", len(head)) + head + bytes(4096)))

    yield "no current", lambda f: f.pop("checkpoint/current")
    yield "no states", lambda f: [f.pop(f"checkpoint/state_{number}") for number in (0, 1)]
    yield "current is short", lambda f: _replace(f, "checkpoint/current", np.ones(3, np.uint8))
    yield "current of ones", lambda f: f["checkpoint/current"].__setitem__(..., 255)
    yield "tree is no JSON", lambda f: state(f, "{")
    yield "tree of numbers", lambda f: state(f, [1, 2, 3])
    yield "deep tree", lambda f: state(f, "[" * 50_000 + "]" * 50_000)
    yield "unknown kind", lambda f: state(f, {"code": "x"})
    yield "unknown array", lambda f: state(f, {"dict": [["a", {"array": "nobody"}]]})
    yield "one array many times", lambda f: state(f, [{"array": "a"}] * 100_000, [["a", "<f8", [512], 4096]])
    yield "array beyond the end", lambda f: state(f, {"array": "a"}, [["a", "<f8", [1 << 40], 1 << 43]])
    yield "array of objects", lambda f: state(f, {"array": "a"}, [["a", "O", [512], 4096]])
    yield "array of another shape", lambda f: state(f, {"array": "a"}, [["a", "<f8", [7, 7], 4096]])
    yield "other names", lambda f: state(f, {"dict": [["progress", 1]]})


def edited(sound: Path, path: Path, edit: Edit) -> Path:
    """A copy of a sound file with a change."""
    shutil.copyfile(sound, path)
    with h5py.File(path, "r+", libver=V110) as file:
        edit(file)
    return path


def never_to_be_read(folder: Path) -> str:
    """A file that whoever opens it waits for without end."""
    path = folder / "outside.h5"
    os.mkfifo(path)
    return str(path)
