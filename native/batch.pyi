"""The fields of a batch, set without running Python code."""

from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

@disjoint_base
class BatchFields:
    @property
    def channel(self) -> str: ...
    @property
    def record(self) -> Any: ...
    @property
    def records(self) -> npt.NDArray[np.void]: ...
    @property
    def session(self) -> int: ...
    @property
    def last(self) -> int: ...
    @property
    def stale(self) -> bool: ...
    @property
    def _origin(self) -> Any: ...
    @property
    def _first(self) -> int: ...
    @property
    def _numbers(self) -> bytes | None: ...
    @property
    def _chosen(self) -> npt.NDArray[np.intp] | None: ...
    @property
    def _client(self) -> Any: ...
    def __init__(
        self,
        channel: str,
        record: Any,
        records: npt.NDArray[np.void],
        origin: Any,
        session: int,
        first: int,
        last: int,
        stale: bool,
        numbers: bytes | None = None,
        chosen: npt.NDArray[np.intp] | None = None,
        client: Any = None,
    ) -> None: ...
