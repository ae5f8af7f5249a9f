"""Record types: one fixed-size dtype a channel, declared once.

Every record starts with the same 32-byte head; what follows is the type's body:

    offset  0            8              16              24           28      32
            +------------+--------------+---------------+------------+-------+- - -
            |ts_event_ns | ts_origin_ns | ts_publish_ns | instrument | flags | body
            |    i8      |     i8       |      i8       |     u4     |  u4   |
            +------------+--------------+---------------+------------+-------+- - -

All little-endian. The size is a multiple of 8. Two dtypes are the same exactly if their ``schema`` (a 32-bit hash
of names, offsets, formats and size) is the same; it travels in every log, packet and join.
"""

from __future__ import annotations

import enum
import hashlib
import keyword
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from fabric.errors import RecordTypeError

Records = npt.NDArray[np.void]
"""A structured array of records, shape (n,)."""

ImageKind = Literal["none", "last", "book"]

HEAD: list[tuple[str, str]] = [
    ("ts_event_ns", "<i8"),
    ("ts_origin_ns", "<i8"),
    ("ts_publish_ns", "<i8"),
    ("instrument", "<u4"),
    ("flags", "<u4"),
]
HEAD_BYTES = 32
MAX_RECORD_BYTES = 32_768


class Flags(enum.IntFlag):
    """Bits of a record's ``flags``: facts of the publisher, never of the way it travelled."""

    LAST_IN_EVENT = 1
    STALE = 2
    VOL_CARRIED = 4
    SNAPSHOT = 8


def canonical_form(dtype: np.dtype[Any]) -> str:
    """The text that ``schema`` is the hash of: ``name:format:shape@offset`` of each field, then the size."""
    if dtype.fields is None or dtype.names is None:
        raise RecordTypeError(f"{dtype} is not a structured dtype")
    parts = []
    for name in dtype.names:
        field, offset = dtype.fields[name][:2]
        shape = "x".join(map(str, field.shape))
        parts.append(f"{name}:{field.base.str}:{shape}@{offset}")
    return ";".join(parts) + f";{dtype.itemsize}"


def schema_hash(dtype: np.dtype[Any]) -> int:
    """u32, never 0: the first 4 bytes (little-endian) of BLAKE2b of the canonical form."""
    digest = hashlib.blake2b(canonical_form(dtype).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") or 1


class RecordType:
    """A named dtype with the head, its schema hash, and how a snapshot of a channel of it is made.

    ``image`` is ``"last"`` (the last record for each distinct ``key``), ``"book"`` (the same, where the field
    ``action`` of 2 removes one key and 3 clears all of an instrument) or ``"none"``.

    ``conflate``: a slow reader that wants so may be given the last record of each key alone. Only with the image
    ``"last"`` (and the default there): of trades, fills and orders each one counts.
    """

    def __init__(
        self,
        name: str,
        dtype: np.dtype[Any],
        *,
        image: ImageKind = "none",
        key: tuple[str, ...] = (),
        conflate: bool | None = None,
    ) -> None:
        self.name = name
        self.dtype = dtype
        self.image: ImageKind = image
        self.key = key or ("instrument",)
        self.conflate = image == "last" if conflate is None else conflate
        self.schema = schema_hash(dtype)
        _check_layout(self)

    def __repr__(self) -> str:
        return f"RecordType({self.name!r}, {self.dtype.itemsize} bytes, schema {self.schema:08x})"

    @property
    def size(self) -> int:
        """Bytes of one record."""
        return self.dtype.itemsize

    def zeros(self, count: int) -> Records:
        """``count`` records of zero bytes, shape (count,)."""
        return np.zeros(count, self.dtype)

    def build(self, count: int | None = None, **columns: npt.ArrayLike) -> Records:
        """Records from columns, broadcast against each other; fields not named are zero. Unknown names raise."""
        arrays = {}
        for field, values in columns.items():
            if self.dtype.fields is None or field not in self.dtype.fields:
                raise RecordTypeError(f"record {self.name!r} has no field {field!r}", remedy=f"fields: {self.fields()}")
            arrays[field] = np.asarray(values)
        if count is None:
            count = max((array.shape[0] for array in arrays.values() if array.ndim), default=1)
        records = self.zeros(count)
        for field, array in arrays.items():
            self.check_column(field, array)
            records[field] = array
        return records

    def check_column(self, field: str, values: npt.NDArray[Any]) -> None:
        """Raises RecordTypeError for what numpy would wrap, or could not convert."""
        assert self.dtype.fields is not None
        base = self.dtype.fields[field][0].base
        if base.kind in "iu" and values.size:
            if values.dtype.kind not in "iub":
                raise RecordTypeError(f"record {self.name!r}: {field} takes whole numbers, not {values.dtype}")
            limits = np.iinfo(base)
            if values.min() < limits.min or values.max() > limits.max:
                raise RecordTypeError(
                    f"record {self.name!r}: {field} takes {limits.min} to {limits.max}, not "
                    f"{values.min() if values.min() < limits.min else values.max()}"
                )
        elif base.kind == "f" and values.dtype.kind not in "fiub":
            raise RecordTypeError(f"record {self.name!r}: {field} takes numbers, not {values.dtype}")

    def view(self, frame: bytes, offset: int, count: int) -> Records:
        """Records in received bytes, read-only and without a copy, shape (count,)."""
        return np.frombuffer(frame, self.dtype, count, offset)

    def fields(self) -> str:
        """The field names, comma-separated."""
        return ", ".join(self.dtype.names or ())

    def describe(self) -> dict[str, Any]:
        """Plain data from which ``RecordType.from_description`` makes an equal type (sent in joins, kept in logs)."""
        assert self.dtype.fields is not None
        fields = []
        for name in self.dtype.names or ():
            field, offset = self.dtype.fields[name][:2]
            fields.append([name, field.base.str, list(field.shape), offset])
        description = {
            "name": self.name,
            "size": self.size,
            "schema": self.schema,
            "image": self.image,
            "key": list(self.key),
            "fields": fields,
        }
        if self.conflate != (self.image == "last"):
            description["conflate"] = self.conflate
        return description

    @staticmethod
    def from_description(description: Mapping[str, Any]) -> RecordType:
        """The inverse of ``describe``. Raises RecordTypeError if the description does not hash to its own schema."""
        try:
            fields = description["fields"]
            dtype = np.dtype(
                {
                    "names": [field[0] for field in fields],
                    "formats": [(field[1], tuple(field[2])) if field[2] else field[1] for field in fields],
                    "offsets": [field[3] for field in fields],
                    "itemsize": description["size"],
                }
            )
            conflate = description.get("conflate")
            made = RecordType(
                str(description["name"]),
                dtype,
                image=description["image"],
                key=tuple(description["key"]),
                conflate=None if conflate is None else bool(conflate),
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise RecordTypeError(f"not a record description: {error!r}") from None
        if made.schema != description["schema"]:
            raise RecordTypeError(f"record {made.name!r}: the description hashes to another schema than it states")
        return made


def _check_layout(record: RecordType) -> None:
    fields = record.dtype.fields
    if fields is None:
        raise RecordTypeError(f"record {record.name!r}: not a structured dtype")
    offset = 0
    for name, code in HEAD:
        if name not in fields or fields[name][1] != offset or fields[name][0] != np.dtype(code):
            raise RecordTypeError(f"record {record.name!r}: field {name!r} must be {code} at offset {offset}")
        offset += np.dtype(code).itemsize
    if record.size % 8 or not HEAD_BYTES < record.size <= MAX_RECORD_BYTES:
        raise RecordTypeError(
            f"record {record.name!r}: size {record.size} must be a multiple of 8, above 32, at most {MAX_RECORD_BYTES}"
        )
    if record.dtype.hasobject:
        raise RecordTypeError(f"record {record.name!r}: Python objects can't be in a record")
    for name in record.key:
        if name not in fields:
            raise RecordTypeError(f"record {record.name!r}: key field {name!r} does not exist")
    if record.image == "book" and "action" not in fields:
        raise RecordTypeError(f"record {record.name!r}: a book image needs a field 'action'")
    if record.conflate and record.image != "last":
        raise RecordTypeError(
            f"record {record.name!r}: conflate=True with image={record.image!r}: each of its records counts",
            remedy='image="last" says that the last record of each key is enough',
        )


_registry: dict[str, RecordType] = {}
_REFUSED = {"O": "Python objects", "V": "records and raw bytes", "c": "complex numbers"}
"""Kinds of dtypes that have no column in a table, and no value in JSON."""


def _check_image(name: str, image: object, key: object) -> None:
    """Raises RecordTypeError; names the likely cause, a field of that name."""
    if image not in get_args(ImageKind):
        raise RecordTypeError(
            f"record {name!r}: image={image!r} is not one of {', '.join(map(repr, get_args(ImageKind)))}",
            remedy="image says how a snapshot is made; a field can't be called that",
        )
    if not isinstance(key, tuple) or not all(isinstance(each, str) for each in key):
        raise RecordTypeError(
            f"record {name!r}: key={key!r} is not a tuple of field names",
            remedy='key says what a snapshot has one record of, such as ("instrument",); a field can\'t be called that',
        )


def record(
    name: str,
    /,
    *,
    image: ImageKind = "none",
    key: tuple[str, ...] = (),
    conflate: bool | None = None,
    **fields: str | tuple[str, tuple[int, ...]],
) -> RecordType:
    """Declare a record type: ``record("skew", put_iv="f8", call_iv="f8")``.

    Each value is a numpy format (``"f8"``, ``"u4"``, ``"S8"``, or ``("f8", (5,))`` for a small array). Fields are laid
    out in the order given, each aligned to its own size (at most 8); the total is padded to a multiple of 8. The type is
    also registered under its name, so ``Input("skew")`` finds it. No field can be called ``image`` or ``key``, which say how
    a snapshot is made, or ``conflate`` (RecordType). Raises RecordTypeError.
    """
    _check_image(name, image, key)
    if conflate is not None and not isinstance(conflate, bool):
        raise RecordTypeError(
            f"record {name!r}: conflate={conflate!r} is not true or false",
            remedy="conflate says whether a slow reader may pass records over; a field can't be called that",
        )
    names, formats, offsets = [], [], []
    offset = HEAD_BYTES
    for field, code in fields.items():
        if keyword.iskeyword(field) or field.startswith("_") or field in dict(HEAD):
            raise RecordTypeError(f"record {name!r}: {field!r} can't be a field name")
        try:
            base = np.dtype(code).newbyteorder("<") if isinstance(code, str) else np.dtype((np.dtype(code[0]), code[1]))
        except (TypeError, ValueError) as error:
            raise RecordTypeError(f"record {name!r}: field {field!r}: {error}") from None
        if base.base.kind in _REFUSED or 0 in base.shape:
            what = _REFUSED.get(base.base.kind, "arrays of no length")
            raise RecordTypeError(
                f"record {name!r}: field {field!r}: {what} can't be in a record",
                remedy='numbers (such as "f8", "u4"), bytes ("S8") and arrays of these (("f8", (5,))) can',
            )
        alignment = min(base.base.itemsize, 8) if base.base.kind not in "SUV" else 1
        offset = -(-offset // alignment) * alignment
        names.append(field)
        formats.append(base)
        offsets.append(offset)
        offset += base.itemsize
    if not names:
        raise RecordTypeError(f"record {name!r} has no fields", remedy='give at least one, such as price="f8"')
    dtype = np.dtype(
        {
            "names": [head for head, _ in HEAD] + names,
            "formats": [np.dtype(code) for _, code in HEAD] + formats,
            "offsets": [0, 8, 16, 24, 28, *offsets],
            "itemsize": -(-offset // 8) * 8,
        }
    )
    made = RecordType(name, dtype, image=image, key=key, conflate=conflate)
    _registry[name] = made
    return made


def find_record(name: str) -> RecordType:
    """The type registered under ``name``; loads the modules of the entry-point group ``fabric.records`` if need be."""
    if name not in _registry:
        from importlib.metadata import entry_points  # 10 ms that a client seldom needs

        for entry in entry_points(group="fabric.records"):
            entry.load()
    if name not in _registry:
        raise RecordTypeError(
            f"no record type is called {name!r}", remedy=f"known: {', '.join(sorted(_registry)) or 'none'}"
        )
    return _registry[name]
