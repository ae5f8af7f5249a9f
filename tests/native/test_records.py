"""Clearing and copying records by their bytes."""

from __future__ import annotations

import numpy as np
import pytest

from native.records import blank, copy
from nodes.records import INSTRUMENT, QUOTE


def test_every_byte_is_copied_and_cleared():
    given, to = INSTRUMENT.zeros(3), INSTRUMENT.zeros(5)
    given.view(np.uint8)[:] = np.arange(given.nbytes) % 251
    to.view(np.uint8)[:] = 0xAA
    copy(to[1:4], given)
    assert to[1:4].tobytes() == given.tobytes()
    assert to[:1].tobytes() == to[4:].tobytes() == b"\xaa" * INSTRUMENT.size
    blank(to[2:3])
    assert to[2:3].tobytes() == bytes(INSTRUMENT.size)
    assert to[1].tobytes() == given[0].tobytes()


def test_what_does_not_fit_is_refused():
    fixed = QUOTE.zeros(2)
    fixed.flags.writeable = False
    for to, records in (
        (QUOTE.zeros(2), QUOTE.zeros(3)),
        (fixed, QUOTE.zeros(2)),
        (QUOTE.zeros(4)[::2], QUOTE.zeros(2)),
    ):
        with pytest.raises(ValueError, match=r"records|bytes"):
            copy(to, records)
    for records in (fixed, QUOTE.zeros(4)[::2]):
        with pytest.raises(ValueError, match="records"):
            blank(records)
