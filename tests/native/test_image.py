"""The keyed image against a dict: last values, books, removed keys, growth, reload."""

from __future__ import annotations

import itertools
import random
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from native.image import KeyedImage

DTYPE = np.dtype(
    {
        "names": ["instrument", "side", "action", "price", "lots"],
        "formats": ["<u4", "u1", "u1", "<i8", "<i8"],
        "offsets": [24, 32, 33, 40, 48],
        "itemsize": 56,
    }
)
INSTRUMENT, SIDE, PRICE = (24, 4), (32, 1), (40, 8)
ACTION_OFFSET = 33
NEW, CHANGE, DELETE, CLEAR = 0, 1, 2, 3


class Oracle:
    """key -> (sequence, record bytes)."""

    def __init__(self, key, with_action):
        self.key, self.with_action, self.kept = key, with_action, {}

    def apply(self, records, sequences):
        for record, sequence in zip(records, sequences, strict=True):
            action = int(record["action"]) if self.with_action else NEW
            key = tuple(record[name].item() for name in self.key)
            if action == CLEAR:
                gone = record["instrument"]
                self.kept = {k: v for k, v in self.kept.items() if k[0] != gone}
            elif action == DELETE:
                self.kept.pop(key, None)
            else:
                self.kept[key] = (int(sequence), record.tobytes())

    def export(self):
        ordered = sorted(self.kept.values())
        return b"".join(record for _, record in ordered), [sequence for sequence, _ in ordered]


def make(kind):
    if kind == "book":
        return KeyedImage(DTYPE.itemsize, [INSTRUMENT, SIDE, PRICE], ACTION_OFFSET), Oracle(
            ("instrument", "side", "price"), True
        )
    return KeyedImage(DTYPE.itemsize, [INSTRUMENT]), Oracle(("instrument",), False)


def same(image, oracle):
    records, numbers = image.export()
    expected_records, expected_numbers = oracle.export()
    assert np.frombuffer(numbers, "<u8").tolist() == expected_numbers
    assert records == expected_records
    assert image.count == len(oracle.kept)


ROWS = st.lists(
    st.tuples(st.integers(1, 4), st.integers(0, 1), st.sampled_from([0, 0, 0, 1, 2, 2, 3]), st.integers(-3, 8)),
    max_size=120,
)


def as_records(rows):
    records = np.zeros(len(rows), DTYPE)
    for at, (instrument, side, action, price) in enumerate(rows):
        records[at] = (instrument, side, action, price, at)
    return records


@pytest.mark.parametrize("kind", ["last", "book"])
@settings(max_examples=200, deadline=None)
@given(rows=ROWS, cuts=st.lists(st.integers(0, 120), max_size=4), base=st.integers(1, 2**62))
def test_image_is_what_a_dict_holds(kind, rows, cuts, base):
    image, oracle = make(kind)
    records = as_records(rows)
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    for begin, end in itertools.pairwise(edges):
        image.update(records[begin:end], base + begin)
        oracle.apply(records[begin:end], range(base + begin, base + end))
        same(image, oracle)
    assert image.as_of == (base + len(rows) - 1 if rows else 0)


@pytest.mark.parametrize("kind", ["last", "book"])
@settings(max_examples=100, deadline=None)
@given(before=ROWS, after=ROWS)
def test_an_exported_image_loaded_again_goes_on_as_the_original(kind, before, after):
    image, oracle = make(kind)
    image.update(as_records(before), 1)
    oracle.apply(as_records(before), range(1, len(before) + 1))
    loaded, _ = make(kind)
    records, sequences = image.export()
    loaded.update(records, 0, sequences)
    loaded.advance(image.as_of)
    assert loaded.export() == image.export()
    assert (loaded.count, loaded.as_of) == (image.count, image.as_of)
    loaded.update(as_records(after), len(before) + 1)
    oracle.apply(as_records(after), range(len(before) + 1, len(before) + len(after) + 1))
    same(loaded, oracle)


@pytest.mark.parametrize("seed", [1, 2])
def test_thousands_of_keys_come_and_go(seed):
    """Growth of table and records, tombstones in long probe chains, rehashing with few live keys."""
    generator = random.Random(seed)
    image, oracle = make("book")
    sequence = 1
    for live in (20, 6000, 50, 3000, 0, 800):
        while len(oracle.kept) != live:
            rows = []
            short = live - len(oracle.kept)
            for _ in range(min(abs(short), 500)):
                if short > 0:
                    price = generator.randrange(10**9)
                    rows.append((1 + price % 7, price % 2, generator.choice([NEW, CHANGE]), price))
                else:
                    instrument, side, price = generator.choice(list(oracle.kept))
                    rows.append((instrument, side, DELETE, price))
            records = as_records(rows)
            image.update(records, sequence)
            oracle.apply(records, range(sequence, sequence + len(rows)))
            sequence += len(rows)
        same(image, oracle)
    cleared = as_records([(3, 0, CLEAR, 0)])
    image.update(cleared, sequence)
    oracle.apply(cleared, [sequence])
    same(image, oracle)
    assert all(key[0] != 3 for key in oracle.kept)
    assert image.as_of == sequence


def test_the_same_key_inserted_and_removed_for_ever_does_not_fill_the_table():
    image, oracle = make("book")
    rows = []
    for price in range(4000):
        rows += [(1, 0, NEW, price), (1, 0, DELETE, price)]
    image.update(as_records(rows), 1)
    oracle.apply(as_records(rows), range(1, len(rows) + 1))
    same(image, oracle)
    assert (image.count, image.as_of) == (0, 8000)


def test_advance_never_goes_back():
    image, _ = make("last")
    image.advance(10)
    image.advance(4)
    assert image.as_of == 10
    image.update(as_records([(1, 0, 0, 0)]), 3)
    assert image.as_of == 10


def test_keys_of_the_largest_allowed_shape():
    fields = [(8 * at, 8) for at in range(8)]
    image = KeyedImage(64, fields)
    generator = random.Random(5)
    blocks = [generator.randbytes(64) for _ in range(300)]
    image.update(b"".join(blocks + blocks), 1)
    assert image.count == 300
    assert image.export()[0] == b"".join(blocks)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((56, []), "1 to 8 fields"),
        ((56, [(0, 1)] * 9), "1 to 8 fields"),
        ((96, [(0, 65)]), "64 bytes"),
        ((56, [(50, 8)]), "outside"),
        ((56, [(-1, 4)]), "outside"),
        ((56, [(8, -4)]), "outside"),
        ((56, [(8, 0)]), "outside"),
        ((56, [(0, 4)], 56), "outside"),
        ((24, [(0, 4)], 8), "outside"),  # CLEAR looks at the instrument at 24
        ((0, [(0, 0)]), "outside"),
    ],
)
def test_a_key_that_does_not_fit_the_record_is_refused(arguments, problem):
    with pytest.raises(ValueError, match=problem):
        KeyedImage(*arguments)


def test_records_without_a_sequence_are_refused():
    image, oracle = make("last")
    with pytest.raises(ValueError, match="count from 1"):
        image.update(as_records([(1, 0, 0, 0), (2, 0, 0, 0)]), 0)
    with pytest.raises(ValueError, match="count from 1"):
        image.update(as_records([(1, 0, 0, 0)]), 1, bytes(8))
    with pytest.raises(ValueError, match="fewer sequences"):
        image.update(as_records([(1, 0, 0, 0)]), 1, bytes(7))
    same(image, oracle)


def test_half_a_record_is_refused():
    image, oracle = make("last")
    with pytest.raises(ValueError, match="whole records"):
        image.update(bytes(57), 1)
    same(image, oracle)


def test_clear_starts_anew():
    image, _ = make("last")
    image.update(np.zeros(3, DTYPE), 5)
    image.clear()
    assert (image.count, image.as_of, image.export()) == (0, 0, (b"", b""))
    image.update(np.zeros(1, DTYPE), 2)
    assert (image.count, image.as_of) == (1, 2)


def test_get_finds_by_key():
    image, _ = make("last")
    records = np.zeros(300, DTYPE)
    records["instrument"] = np.arange(300)
    image.update(records, 11)
    assert image.get(np.uint32(299).tobytes()) == (records[299].tobytes(), 310)
    assert image.get(np.uint32(300).tobytes()) is None
    with pytest.raises(ValueError, match="4 bytes, not 3"):
        image.get(b"abc")


def test_readers_in_other_threads_never_see_half_a_record():
    """Every record's fields hold one number; a reader that saw a write in the middle would see two."""
    image, _ = make("book")
    numbers = np.arange(1, 400_001)
    records = np.zeros(len(numbers), DTYPE)
    records["instrument"] = 1
    records["price"] = numbers % 700  # grows the table while it is read
    records["lots"] = numbers
    records["side"] = 1
    records["action"][::7] = DELETE
    stop = threading.Event()
    torn, reads = [], [0, 0]

    def look_up():
        key = np.uint32(1).tobytes() + b"\x01" + np.int64(3).tobytes()
        while not stop.is_set():
            found = image.get(key)
            reads[0] += 1
            if found is not None:
                record = np.frombuffer(found[0], DTYPE)[0]
                if record["price"] != 3 or record["lots"] != found[1] or record["lots"] % 700 != 3:
                    torn.append(record)

    def export():
        while not stop.is_set():
            found, sequences = image.export()
            reads[1] += 1
            rows = np.frombuffer(found, DTYPE)
            if not np.array_equal(rows["lots"], np.frombuffer(sequences, np.uint64)):
                torn.append(rows)
            if not np.array_equal(rows["lots"] % 700, rows["price"]):
                torn.append(rows)

    threads = [threading.Thread(target=look_up), threading.Thread(target=export)]
    for thread in threads:
        thread.start()
    rounds = 0
    while (min(reads) < 20 or rounds < 3) and rounds < 500:
        rounds += 1
        image.clear()
        image.update(records, 1)
    stop.set()
    for thread in threads:
        thread.join()
    assert not torn
    assert min(reads) >= 20


def test_an_export_is_of_one_moment_although_keys_change_places():
    """Removed and added again in another order, keys take one another's slots: none may be missing or there twice."""
    image, _ = make("book")
    count = 2000
    whole = np.zeros(count, DTYPE)
    whole["instrument"], whole["price"] = 1, np.arange(count)
    image.update(whole, 1)
    swaps = np.zeros(4 * (count // 2), DTYPE)
    swaps["instrument"] = 1
    a, b = np.arange(0, count, 2), np.arange(1, count, 2)
    swaps["price"] = np.stack([a, b, a, b], axis=1).reshape(-1)
    swaps["action"] = np.tile([DELETE, DELETE, NEW, NEW], count // 2)
    stop, wrong, exports = threading.Event(), [], 0

    def churn():
        sequence = count + 1
        while not stop.is_set():
            image.update(swaps, sequence)
            sequence += len(swaps)

    thread = threading.Thread(target=churn)
    thread.start()
    while exports < 60:
        rows = np.frombuffer(image.export()[0], DTYPE)
        exports += 1
        if not np.array_equal(np.sort(rows["price"]), np.arange(count)):
            wrong.append(len(rows))
    stop.set()
    thread.join()
    assert not wrong
