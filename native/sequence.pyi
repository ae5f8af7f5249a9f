from enum import IntEnum

from typing_extensions import disjoint_base

class Verdict(IntEnum):
    IN_ORDER = 0
    DUPLICATE = 1
    OVERLAP = 2
    AHEAD = 3
    NEWER_SESSION = 4
    FENCED = 5
    CONFLICT = 6
    NO_SESSION = 7

@disjoint_base
class Tracker:
    session: int
    delivered: int
    seen: int

    def verdict(self, session: int, first: int, count: int) -> int: ...
    def accept(self, session: int, first: int, count: int) -> int: ...
