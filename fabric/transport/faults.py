"""Faults put into the sending of live packets on purpose, from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

from fabric.errors import ConfigError


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """What share of a publisher's live packets (heartbeats too) is dropped instead of sent."""

    drop: float = 0.0
    seed: int = 0

    @staticmethod
    def parse(text: str) -> FaultPlan:
        """``"drop=0.01,seed=7"``. Raises ConfigError."""
        drop, seed = 0.0, 0
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = part.partition("=")
            try:
                if name == "drop":
                    drop = float(value)
                elif name == "seed":
                    seed = int(value)
                else:
                    raise ConfigError(f"unknown fault {name!r}", key="--fault", remedy="write drop=0.01,seed=7")
            except ValueError:
                raise ConfigError(f"{part!r}: not a number", key="--fault", remedy="write drop=0.01,seed=7") from None
        if not 0.0 <= drop < 1.0:
            raise ConfigError(f"drop={drop} is not a share", key="--fault", remedy="0 <= drop < 1")
        return FaultPlan(drop, seed)

    def __str__(self) -> str:
        return f"drop={self.drop:g},seed={self.seed}"

    def injector(self, name: str) -> FaultInjector:
        """The injector of one publisher: same plan and name, same decisions."""
        return FaultInjector(self, random.Random(f"{self.seed}/{name}"))


class FaultInjector:
    """Decides packet by packet."""

    def __init__(self, plan: FaultPlan, source: random.Random) -> None:
        self._drop = plan.drop
        self._random = source.random

    def drops(self) -> bool:
        """True if this packet is not to be sent."""
        return self._random() < self._drop
