"""A node's checkpoint: all that is needed to go on from a cycle, in one file with a checksum, replaced in one step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from fabric.errors import LogDamaged
from native.packet import crc32c

CHECKPOINT = "checkpoint"
_VERSION = 1
_MAGIC = b"ZMFC"
_ARRAY = 1
_STRUCTURED = 2
_BIG_INT = 3


def pack(state: Any) -> bytes:
    """Plain data and numpy arrays (no Python objects in them) to bytes."""
    packed: bytes = msgpack.packb(state, default=_encode, strict_types=False)
    return packed


def unpack(content: bytes) -> Any:
    """The inverse of ``pack``; arrays are writable copies, tuples come back as lists."""
    return msgpack.unpackb(content, ext_hook=_decode, strict_map_key=False)


def seal(state: dict[str, Any]) -> bytes:
    """The content of a checkpoint's file."""
    content = pack({"version": _VERSION, **state})
    return _MAGIC + crc32c(content).to_bytes(4, "little") + content


def load_checkpoint(directory: Path) -> dict[str, Any] | None:
    """None if there is none yet. Raises LogDamaged."""
    path = directory / CHECKPOINT
    try:
        content = path.read_bytes()
        if content[:4] != _MAGIC or crc32c(content[8:]) != int.from_bytes(content[4:8], "little"):
            raise ValueError("its checksum does not hold")
        state = unpack(content[8:])
    except FileNotFoundError:
        return None
    except Exception as error:  # msgpack raises many types for garbage
        raise LogDamaged(f"is not a checkpoint: {error}", path=path, remedy="remove it to start fresh") from None
    if not isinstance(state, dict) or state.get("version") != _VERSION:
        raise LogDamaged("is a checkpoint of another version", path=path, remedy="remove it to start fresh")
    return state


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise TypeError("a checkpoint can't hold arrays of Python objects")
        content = np.ascontiguousarray(value).tobytes()
        if value.dtype.names is None:
            return msgpack.ExtType(_ARRAY, msgpack.packb([value.dtype.str, list(value.shape), content]))
        assert value.dtype.fields is not None
        fields = [(name, *value.dtype.fields[name][:2]) for name in value.dtype.names]
        layout = [[name, kind.base.str, list(kind.shape), offset] for name, kind, offset in fields]
        packed = msgpack.packb([[layout, value.dtype.itemsize], list(value.shape), content])
        return msgpack.ExtType(_STRUCTURED, packed)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, int):
        return msgpack.ExtType(_BIG_INT, str(value).encode())
    raise TypeError(f"a checkpoint can't hold {type(value).__name__}: use numbers, strings, lists, dicts, numpy arrays")


def _decode(code: int, content: bytes) -> Any:
    if code == _BIG_INT:
        return int(content)
    described, shape, raw = msgpack.unpackb(content)
    if code == _STRUCTURED:
        layout, size = described
        dtype = np.dtype(
            {
                "names": [name for name, *_ in layout],
                "formats": [(kind, tuple(inner)) if inner else kind for _, kind, inner, _ in layout],
                "offsets": [offset for *_, offset in layout],
                "itemsize": size,
            }
        )
    else:
        dtype = np.dtype(described)
    return np.frombuffer(raw, dtype).reshape(shape).copy()
