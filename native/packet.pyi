from collections.abc import Buffer
from enum import IntEnum
from typing import Final

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

class Header:
    @property
    def channel(self) -> int: ...
