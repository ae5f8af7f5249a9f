"""Sizes and durations as people write them: ``"512MiB"``, ``"100ms"``."""

from __future__ import annotations

import re
from typing import Self

_SIZES = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_DURATIONS_NS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}
SIZE_UNITS, DURATION_UNITS = [*filter(None, _SIZES)], [*_DURATIONS_NS]
_PATTERN = re.compile(r"\s*([0-9]+(?:_[0-9]+)*(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")


def parse_bytes(text: str) -> int:
    """``"64MiB"`` to 67108864. Raises ValueError that names the units."""
    return _parse(text, _SIZES, "a size", "512MiB")


def parse_duration_ns(text: str) -> int:
    """``"100ms"`` to 100000000. Raises ValueError that names the units."""
    return _parse(text, _DURATIONS_NS, "a duration", "100ms")


def _parse(text: str, units: dict[str, int], what: str, example: str) -> int:
    match = _PATTERN.fullmatch(text)
    if match is None or match[2] not in units:
        names = ", ".join(unit for unit in units if unit)
        raise ValueError(f"{text!r} is not {what}: write a number and one of {names}, such as {example!r}")
    number = match[1].replace("_", "")
    scale = units[match[2]]
    return int(number) * scale if "." not in number else round(float(number) * scale)


class Duration(int):
    """Nanoseconds. Made from ``"100ms"`` or a number of nanoseconds, and shown with a unit.

    As the type of a node's config key, ``every: fabric.Duration = fabric.Duration("1s")``, it takes a string with a unit.
    """

    __slots__ = ()

    def __new__(cls, value: str | int) -> Self:
        """Raises ValueError that names the units."""
        return super().__new__(cls, parse_duration_ns(value) if isinstance(value, str) else value)

    def __str__(self) -> str:
        return _shown(int(self), _DURATIONS_NS, "s")

    def __repr__(self) -> str:
        return f"Duration({str(self)!r})"


class Bytes(int):
    """A size in bytes. Made from ``"64MiB"`` or a number of bytes, and shown with a unit.

    As the type of a node's config key, ``buffer: fabric.Bytes = fabric.Bytes("1MiB")``, it takes a string with a unit.
    """

    __slots__ = ()

    def __new__(cls, value: str | int) -> Self:
        """Raises ValueError that names the units."""
        return super().__new__(cls, parse_bytes(value) if isinstance(value, str) else value)

    def __str__(self) -> str:
        return _shown(
            int(self), {unit: size for unit, size in _SIZES.items() if unit in ("B", "KiB", "MiB", "GiB")}, "B"
        )

    def __repr__(self) -> str:
        return f"Bytes({str(self)!r})"


def _shown(value: int, units: dict[str, int], zero: str) -> str:
    """The largest unit that gives a whole number, so that nothing is rounded."""
    if value == 0:
        return f"0{zero}"
    return next(
        f"{value // size}{unit}" for unit, size in sorted(units.items(), key=lambda each: -each[1]) if value % size == 0
    )


def format_bytes(count: int) -> str:
    """The largest binary unit that gives at least 1: ``"3.2 MiB"``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def format_ns(nanoseconds: float) -> str:
    """The largest of ns, us, ms, s that gives at least 1: ``"41.3 us"``."""
    value = float(nanoseconds)
    for unit in ("ns", "us", "ms"):
        if abs(value) < 1000:
            return f"{value:.0f} {unit}" if unit == "ns" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} s"
