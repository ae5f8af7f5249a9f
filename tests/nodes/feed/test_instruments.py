"""Ids: dense, stable, in ranges that feeds never share."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fabric.errors import FabricError, InputFileError
from nodes.feed.instruments import RANGE_SIZE, RANGES_FILE, InstrumentIds
from nodes.records import INSTRUMENT


def test_ids_are_dense_from_the_start_of_the_range_and_stable() -> None:
    ids = InstrumentIds()
    assert [ids.id_of(symbol) for symbol in ("A", "B", "A", "C")] == [1, 2, 1, 3]
    assert "A" in ids
    assert "D" not in ids
    assert len(ids) == 3


def test_every_feed_owns_a_range_of_its_own_for_good(tmp_path: Path) -> None:
    firsts = {feed: InstrumentIds.lease(feed, tmp_path).first for feed in ("one", "two", "three")}
    assert firsts == {"one": 1, "two": RANGE_SIZE + 1, "three": 2 * RANGE_SIZE + 1}
    assert InstrumentIds.lease("two", tmp_path).first == firsts["two"]
    assert json.loads((tmp_path / RANGES_FILE).read_text()) == firsts


def test_without_a_folder_the_first_range_is_used() -> None:
    assert InstrumentIds.lease("feed", None).first == 1


def test_leases_at_once_get_different_ranges(tmp_path: Path) -> None:
    """Threads stand for processes: a flock belongs to the open file, and each lease opens its own."""
    with ThreadPoolExecutor(8) as pool:
        leases = list(pool.map(lambda number: InstrumentIds.lease(f"feed{number}", tmp_path), range(40)))
    assert sorted(ids.first for ids in leases) == [number * RANGE_SIZE + 1 for number in range(40)]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 2}', '{"a": "1"}', '{"a": 1, "b": 1}', '{"a": -1048575}'])
def test_a_damaged_table_is_named_and_left_as_it_is(tmp_path: Path, content: str) -> None:
    path = tmp_path / RANGES_FILE
    path.write_text(content)
    with pytest.raises(InputFileError, match=r"instrument-ranges\.json") as caught:
        InstrumentIds.lease("feed", tmp_path)
    assert caught.value.remedy
    assert path.read_text() == content


def test_ids_go_on_from_published_definitions(tmp_path: Path) -> None:
    first = InstrumentIds.lease("feed", tmp_path)
    records = INSTRUMENT.build(symbol=np.array([b"A", b"B"]), instrument=np.array([first.id_of("A"), first.id_of("B")]))
    again = InstrumentIds.lease("feed", tmp_path)
    again.adopt(records)
    assert [again.id_of(symbol) for symbol in ("C", "B", "A")] == [3, 2, 1]


def test_adopted_ids_of_another_range_are_kept_and_new_ones_come_from_the_own_range() -> None:
    ids = InstrumentIds(RANGE_SIZE + 1)
    ids.adopt(INSTRUMENT.build(symbol=np.array([b"A"]), instrument=np.array([5])))
    assert ids.id_of("A") == 5
    assert ids.id_of("B") == RANGE_SIZE + 1


def test_one_id_for_two_symbols_is_refused() -> None:
    with pytest.raises(ValueError, match="is both"):
        InstrumentIds().adopt(INSTRUMENT.build(symbol=np.array([b"A", b"B"]), instrument=np.array([1, 1])))


def test_a_full_range_and_a_long_symbol_are_refused() -> None:
    ids = InstrumentIds()
    ids.restore({"first": 1, "next": RANGE_SIZE + 1, "ids": {}})
    with pytest.raises(FabricError, match="are taken"):
        ids.id_of("A")
    with pytest.raises(ValueError, match="does not fit"):
        InstrumentIds().id_of("A" * 33)


def test_checkpoint_and_restore() -> None:
    ids = InstrumentIds(RANGE_SIZE + 1)
    ids.id_of("A")
    again = InstrumentIds()
    again.restore(ids.checkpoint())
    assert again.id_of("A") == RANGE_SIZE + 1
    assert again.id_of("B") == RANGE_SIZE + 2
