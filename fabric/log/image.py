"""The image of a channel as kept beside its log: what the records that retention removed had left behind."""

from __future__ import annotations

from pathlib import Path

import msgpack

from fabric.errors import LogDamaged, LogMissing
from fabric.log.paths import IMAGE, write_atomically
from fabric.log.reader import LogReader
from fabric.records import RecordType
from native.image import KeyedImage


def empty_image(record: RecordType) -> KeyedImage:
    """An image of a channel of this type at sequence 0. The type must have one (``image != "none"``)."""
    assert record.dtype.fields is not None
    fields = [(record.dtype.fields[name][1], record.dtype.fields[name][0].itemsize) for name in record.key]
    action = record.dtype.fields["action"][1] if record.image == "book" else -1
    return KeyedImage(record.size, fields, action)


def save_image(session_directory: Path, image: KeyedImage) -> None:
    """Write the checkpoint file, in one step."""
    records, sequences = image.export()
    content = msgpack.packb({"as_of": image.as_of, "records": records, "sequences": sequences})
    write_atomically(session_directory / IMAGE, content)


def load_image(session_directory: Path, record: RecordType) -> KeyedImage:
    """The checkpoint, or an empty image where retention has removed nothing yet. Raises LogDamaged."""
    image = empty_image(record)
    path = session_directory / IMAGE
    try:
        content = msgpack.unpackb(path.read_bytes())
        image.update(content["records"], 0, content["sequences"])
        image.advance(content["as_of"])
    except FileNotFoundError:
        pass
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise LogDamaged(f"is not an image: {error!r}", path=path) from None
    return image


def newest_image(log: LogReader, known: KeyedImage | None = None) -> KeyedImage:
    """The image of everything committed so far: ``known`` (of the same log) brought up to date, or made from the one that
    is kept beside the log. The log's record type must have one. Raises LogMissing where the
    records that the image lacks are gone."""
    image = known
    while True:
        first_available = log.first_available  # before the image: that moves first
        if image is None or image.as_of + 1 < first_available:
            image = load_image(log.directory, log.record)
            if max(image.as_of + 1, log.base) < first_available:
                raise LogMissing(
                    f"records before {first_available} are gone, and its image does not have them", path=log.directory,
                    remedy="ask a log that has them",
                )  # fmt: skip
        try:
            for first, records in log.read_range(max(image.as_of + 1, log.base), log.next - 1):
                image.update(records, first)
                image.advance(first + len(records) - 1)
            return image
        except IndexError:  # retention went on in the meantime; its image did so before it
            image = None
