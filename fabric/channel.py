"""A channel's name and its 64-bit id, which is also its ZeroMQ subscription prefix."""

from __future__ import annotations

import hashlib
import re

from fabric.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def check_channel_name(name: str, *, file: str = "", key: str = "") -> str:
    """Returns the name. Raises ConfigError if it can't be one (it is also a directory's name)."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} can't be a channel's name",
            file=file,
            key=key,
            remedy="letters, digits, '.', '_' and '-', at most 128, beginning with a letter or digit",
        )
    return name


def channel_id(name: str) -> int:
    """The first 8 bytes (little-endian) of BLAKE2b of the name; 0 is reserved."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") or 1


def channel_prefix(identity: int) -> bytes:
    """What a SUB socket subscribes to."""
    return identity.to_bytes(8, "little")
