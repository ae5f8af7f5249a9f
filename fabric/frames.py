"""Records as Arrow, polars and pandas tables.

    field                      Arrow
    i8, name ends in _ns       timestamp[ns, UTC]     (a duration is declared u8 or f8)
    instrument                 dictionary<string> where definitions are known, else uint32
    S…                         string
    f8, u1, …                  the same number
    an array of any of these   fixed-size list, nested once for each of its dimensions

pyarrow is loaded on first use; it comes with the extra ``arrow``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

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

    __slots__ = ()

    def to_arrow(self, *, symbols: Symbols = None) -> pyarrow.Table:
        """A ``pyarrow.Table``. Raises UserMistake without pyarrow, or without definitions where symbols were asked for."""
        pa = _load("pyarrow")
        parts = list(self._rows())
        names = self._names(symbols)
        # One without rows says what the columns are, where there is nothing else.
        batches = [to_batch(records, names) for records in [each for each in parts if len(each)] or parts[:1]]
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


def to_batch(
    records: Records, symbols: Mapping[int, str] | None, *, whole_dictionary: bool = False
) -> pyarrow.RecordBatch:
    """A ``pyarrow.RecordBatch`` of the records (copied column by column). ``whole_dictionary``: all symbols stand in the
    dictionary, so that every batch has the same one, not those alone that occur."""
    pa = _load("pyarrow")
    names = records.dtype.names or ()
    columns = [
        _symbols_column(pa, records["instrument"], symbols, whole_dictionary)
        if name == "instrument" and symbols is not None
        else _column(pa, records, name)
        for name in names
    ]
    return pa.RecordBatch.from_arrays(columns, names=list(names))


def is_time(name: str, dtype: np.dtype[Any]) -> bool:
    """Is this field a time? Signed 64-bit and named ``…_ns``."""
    return name.endswith("_ns") and dtype.kind == "i" and dtype.itemsize == 8


def _symbols_column(pa: Any, ids: npt.NDArray[np.uint32], symbols: Mapping[int, str], whole: bool) -> Any:
    """Dictionary-encoded symbols; null where an id has none."""
    found = np.unique(ids).tolist()
    listed = sorted(symbols) if whole else [each for each in found if each in symbols]
    known = np.array(listed, np.uint32)
    places = np.searchsorted(known, ids)
    missing = np.ones(len(ids), bool) if not listed else known[np.minimum(places, len(known) - 1)] != ids
    indices = pa.array(np.where(missing, 0, places), pa.int32(), mask=missing if missing.any() else None)
    return pa.DictionaryArray.from_arrays(indices, pa.array([symbols[each] for each in listed], pa.string()))


def _column(pa: Any, records: Records, name: str) -> Any:
    values = np.ascontiguousarray(records[name])
    column = _flat(pa, name, values.reshape(-1))
    for length in reversed(values.shape[1:]):
        column = pa.FixedSizeListArray.from_arrays(column, length)
    return column


def _flat(pa: Any, name: str, values: npt.NDArray[Any]) -> Any:
    if is_time(name, values.dtype):
        return pa.array(values.view("datetime64[ns]"), pa.timestamp("ns", tz="UTC"))
    if values.dtype.kind == "S":
        return pa.array([each.decode("utf-8", "replace") for each in values.tolist()], pa.string())
    return pa.array(values)


def _load(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserMistake(f"{module} is not installed", remedy="pip install 'zmq-market-fabric[arrow]'") from None
