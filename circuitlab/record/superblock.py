"""The first 48 bytes of an HDF5 file: where it ends, and who may open it (version 3, HDF5 File Format, II.A)."""

from __future__ import annotations

import struct

SIZE = 48
"""Bytes of a superblock of version 3 with addresses of 8 bytes."""
_SIGNATURE, _VERSION = b"\x89HDF\r\n\x1a\n", 3
_FLAGS, _END, _CHECKSUM = 11, 28, 44
_MASK = 0xFFFFFFFF


def _turned(value: int, by: int) -> int:
    return ((value << by) | (value >> (32 - by))) & _MASK


def lookup3(data: bytes) -> int:
    """Bob Jenkins' hash of 2006 (hashlittle), which HDF5 takes as the checksum of its metadata."""
    a = b = c = (0xDEADBEEF + len(data)) & _MASK
    place, left = 0, len(data)
    while left > 12:
        x, y, z = struct.unpack_from("<III", data, place)
        a, b, c = (a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK
        a = ((a - c) & _MASK) ^ _turned(c, 4)
        c = (c + b) & _MASK
        b = ((b - a) & _MASK) ^ _turned(a, 6)
        a = (a + c) & _MASK
        c = ((c - b) & _MASK) ^ _turned(b, 8)
        b = (b + a) & _MASK
        a = ((a - c) & _MASK) ^ _turned(c, 16)
        c = (c + b) & _MASK
        b = ((b - a) & _MASK) ^ _turned(a, 19)
        a = (a + c) & _MASK
        c = ((c - b) & _MASK) ^ _turned(b, 4)
        b = (b + a) & _MASK
        place, left = place + 12, left - 12
    if left:
        x, y, z = struct.unpack("<III", data[place:].ljust(12, b"\0"))
        a, b, c = (a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK
        c = ((c ^ b) - _turned(b, 14)) & _MASK
        a = ((a ^ c) - _turned(c, 11)) & _MASK
        b = ((b ^ a) - _turned(a, 25)) & _MASK
        c = ((c ^ b) - _turned(b, 16)) & _MASK
        a = ((a ^ c) - _turned(c, 4)) & _MASK
        b = ((b ^ a) - _turned(a, 14)) & _MASK
        c = ((c ^ b) - _turned(b, 24)) & _MASK
    return c


def is_superblock(data: bytes) -> bool:
    """Whether these are the bytes of a whole superblock of the kind that run files have."""
    return (
        len(data) >= SIZE
        and data.startswith(_SIGNATURE)
        and data[8] == _VERSION
        and struct.unpack_from("<I", data, _CHECKSUM)[0] == lookup3(data[:_CHECKSUM])
    )


def end_of_file(data: bytes) -> int:
    """Where HDF5 takes the file to end."""
    return struct.unpack_from("<Q", data, _END)[0]


def opened_by_nobody(data: bytes, end: int) -> bytes:
    """The superblock with another end of the file, and without the flags of a writer that has it open.

    HDF5 refuses a file with such flags to plain readers, also after the writer's death. Whether somebody
    writes a run file its lock tells.
    """
    head = bytearray(data[:_CHECKSUM])
    head[_FLAGS] = 0
    struct.pack_into("<Q", head, _END, end)
    return bytes(head) + struct.pack("<I", lookup3(bytes(head)))
