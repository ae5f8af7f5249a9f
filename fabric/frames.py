"""Records as Arrow, polars and pandas tables.

    field                      Arrow
    i8, name ends in _ns       timestamp[ns, UTC]     (a duration is declared u8 or f8)
    instrument                 dictionary<string> where definitions are known, else uint32
    S…                         string
    f8, u1, …                  the same number; arrays in a record become fixed-size lists

pyarrow is loaded on first use; it comes with the extra ``arrow``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fabric.errors import UserMistake
from fabric.records import Records

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

Symbols = bool | Mapping[int, str] | None


class Tabular:
    """Something with records that can be handed to other libraries. It has ``_rows`` and ``_symbols``.

    ``symbols``: True replaces instrument ids by symbols, False keeps the numbers, a mapping says which; by default symbols
    are used where definitions are known.
    """

    def to_arrow(self, *, symbols: Symbols = None) -> pyarrow.Table:
        """A ``pyarrow.Table``. Raises UserMistake without pyarrow, or without definitions where symbols were asked for."""
        pa = _load("pyarrow")
        parts = list(self._rows())
        names = self._names(symbols)
        batches = [to_batch(records, names) for records in parts if len(records) or len(parts) == 1]
        if names is None or len(batches) < 2:
            return pa.Table.from_batches(batches)
        return pa.Table.from_batches(batches).unify_dictionaries()

    def to_polars(self, *, symbols: Symbols = None) -> polars.DataFrame:
        """A ``polars.DataFrame``."""
        frame: polars.DataFrame = _load("polars").from_arrow(self.to_arrow(symbols=symbols))
        return frame

    def to_pandas(self, *, symbols: Symbols = None) -> pandas.DataFrame:
        """A ``pandas.DataFrame``; symbols are a categorical column, times are UTC."""
        _load("pandas")
        return self.to_arrow(symbols=symbols).to_pandas()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The Arrow PyCapsule interface: what polars, pandas, DuckDB and others read from directly."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def _rows(self) -> Iterator[Records]:
        raise NotImplementedError

    def _symbols(self) -> Mapping[int, str] | None:
        """id ▸ symbol, or None where there are no definitions."""
        return None

    def _names(self, symbols: Symbols) -> Mapping[int, str] | None:
        if symbols is False:
            return None
        if symbols is not None and symbols is not True:
            return symbols
        names = self._symbols()
        if names is None and symbols:
            raise UserMistake(
                "no instrument definitions are known here",
                remedy="connect with a config that has an instrument channel, or give symbols={id: symbol}",
            )
        return names


def to_batch(records: Records, symbols: Mapping[int, str] | None) -> pyarrow.RecordBatch:
    """A ``pyarrow.RecordBatch`` of the records (copied column by column)."""
    pa = _load("pyarrow")
    names = records.dtype.names or ()
    columns = [_column(pa, records, name, symbols) for name in names]
    return pa.RecordBatch.from_arrays(columns, names=list(names))


def is_time(name: str, dtype: np.dtype[Any]) -> bool:
    """Is this field a time? Signed 64-bit and named ``…_ns``."""
    return name.endswith("_ns") and dtype.kind == "i" and dtype.itemsize == 8


def _column(pa: Any, records: Records, name: str, symbols: Mapping[int, str] | None) -> Any:
    field = records[name]
    if name == "instrument" and symbols is not None:
        ids, indices = np.unique(field, return_inverse=True)
        labels = [symbols.get(each) for each in ids.tolist()]
        if None not in labels:
            return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(labels, pa.string()))
        known = np.array([label is not None for label in labels], bool)
        places = np.cumsum(known) - 1
        kept = pa.array([label for label in labels if label is not None], pa.string())
        return pa.DictionaryArray.from_arrays(pa.array(places[indices], pa.int32(), mask=~known[indices]), kept)
    values = np.ascontiguousarray(field)
    if is_time(name, values.dtype):
        return pa.array(values.view("datetime64[ns]"), pa.timestamp("ns", tz="UTC"))
    if values.dtype.kind == "S":
        return pa.array([each.decode("utf-8", "replace") for each in values.tolist()], pa.string())
    if values.ndim > 1:
        each = int(np.prod(values.shape[1:]))
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), each)
    return pa.array(values)


def _load(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserMistake(f"{module} is not installed", remedy="pip install 'zmq-market-fabric[arrow]'") from None
