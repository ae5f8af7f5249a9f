from enum import IntEnum
from typing import Any, Final

import numpy.typing as npt
from typing_extensions import Buffer, disjoint_base

_Buffer = Buffer | npt.NDArray[Any]

HEADER_BYTES: Final = 48
MAX_BYTES: Final = 65536

class Kind(IntEnum):
    DATA = 1
    SNAPSHOT = 2
    HEARTBEAT = 3
    END = 4

class ParseResult(IntEnum):
    OK = 0
    SHORT = 1
    BAD_VERSION = 2
    BAD_KIND = 3
    BAD_LENGTH = 4
    BAD_CRC = 5

@disjoint_base
class Header:
    @property
    def channel(self) -> int: ...
    @property
    def session(self) -> int: ...
    @property
    def sequence(self) -> int: ...
    @property
    def sent_ns(self) -> int: ...
    @property
    def schema(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def kind(self) -> int: ...
    @property
    def flags(self) -> int: ...
    def parse(self, frame: bytes) -> int: ...

def encode(
    kind: int,
    channel: int,
    session: int,
    sequence: int,
    sent_ns: int,
    schema: int,
    record_bytes: int,
    count: int,
    records: _Buffer | None = None,
    crc: bool = False,
) -> bytes: ...
def crc32c(data: _Buffer, crc: int = 0, portable: bool = False) -> int: ...
def crc32c_target() -> str: ...
