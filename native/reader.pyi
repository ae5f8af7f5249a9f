"""Reading a mapped log with nothing between it and the reader."""

from typing import Any

from native.follow import Followers, LogCursor

class DirectReader:
    def read_directly(
        self,
        cursor: LogCursor | None,
        logs: Followers,
        idle: int,
        batch_class: type,
        channel: str,
        record: Any,
        origin: Any,
        client: Any,
        machine: Any,
        hub: Any,
    ) -> None: ...
    def poll(self, max_records: int | None = None, timeout: float | None = 0.0) -> Any: ...
    def __next__(self) -> Any: ...
