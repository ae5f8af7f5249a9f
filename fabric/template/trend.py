"""The node ``trend``: how far each option's implied volatility is from its own moving average."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fabric import Input, InputPort, Lost, Node, Output, Skipped, record
from fabric.records import Records

TREND = record("trend", image="last", iv="f8", average="f8", deviation="f8", samples="u8")
"""One record for each greeks record with a volatility. ``deviation`` is ``iv - average``, the average before it."""


class Trend(Node):
    greeks = Input("greeks")  # the record type's name; it is checked before anything starts
    trend = Output(TREND)

    alpha: float = 0.05  # a config key, typed, with a default: the weight of a new volatility in the average

    def on_start(self) -> None:
        self._averages: dict[int, tuple[float, int]] = {}  # instrument: average, samples
        self._lost = 0

    def on_records(self, channel: InputPort, records: Records, now_ns: int) -> None:
        for position, (instrument, iv) in enumerate(
            zip(records["instrument"].tolist(), records["iv"].tolist(), strict=True)
        ):
            if not math.isfinite(iv):
                continue
            average, samples = self._averages.get(instrument, (iv, 0))
            self.trend.append(
                iv=iv,
                average=average,
                deviation=iv - average,
                samples=samples + 1,
                cause=records[position : position + 1],  # its instrument, times and staleness are taken over
            )
            self._averages[instrument] = (average + self.alpha * (iv - average), samples + 1)

    def on_lost(self, channel: InputPort, lost: Lost | Skipped) -> None:
        self._lost += lost.count
        self.log.warning("%s: %d records from %d on are missing", channel, lost.count, lost.first)

    def report(self) -> dict[str, Any]:
        return {"instruments": len(self._averages), "lost": self._lost}

    # What a restarted process needs to go on as if nothing had happened: all state that later output depends on.

    def checkpoint(self) -> dict[str, Any]:
        return {"averages": self._averages, "lost": self._lost}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._averages = {key: (average, samples) for key, (average, samples) in state["averages"].items()}
        self._lost = state["lost"]
