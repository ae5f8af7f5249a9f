"""A config value that must not be seen: a key or password, told only to who asks for it by ``reveal``."""

from __future__ import annotations

import hmac
from typing import Any, NoReturn, Self

MASK = "***"


class Secret:
    """A text that prints as ``***``. Not a ``str``: what takes strings (JSON, logs, packets) can't take it unnoticed.

    As the type of a node's config key, ``api_key: fabric.Secret``, it accepts only ``{ env = "NAME" }`` and
    ``{ file = "path" }`` in the config.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself. Hand it to what needs it, and keep it nowhere."""
        return self._text

    def __repr__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")
