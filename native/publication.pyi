from collections.abc import Callable
from typing import Any

import numpy.typing as npt
from typing_extensions import disjoint_base

from native.appender import Appender
from native.wire import Outlet

@disjoint_base
class SocketLock:
    def __new__(cls) -> SocketLock: ...
    def __enter__(self) -> SocketLock: ...
    def __exit__(self, *_: object) -> None: ...

@disjoint_base
class Publication:
    def __new__(
        cls,
        appender: Appender,
        outlet: Outlet | None,
        lock: SocketLock,
        *,
        channel: int,
        session: int,
        schema: int,
        crc: bool,
    ) -> Publication: ...
    wanted: bool
    announced: int
    handler: Callable[[npt.NDArray[Any], int], object] | None
    def write(self, records: npt.NDArray[Any], now_ns: int) -> int: ...
    def put(self, columns: dict[str, Any], now_ns: int) -> int: ...
    def send_committed(self, records: npt.NDArray[Any], first: int) -> bool: ...

@disjoint_base
class DirectWriter:
    def write_directly(self, publication: Publication, stage: list[Any], now_ns: Callable[[], int] | None) -> None: ...
    def send(self, records: Any = None, **columns: Any) -> int: ...
