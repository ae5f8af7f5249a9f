"""A config value that names where something comes from: ``capture:PATH``, ``wss://…``, or a plain path."""

from __future__ import annotations

from pathlib import Path

_PATH_SCHEMES = ("capture:", "file:")


class Location(str):
    """A string such as ``"capture:../data/x.log"``; the path in it is relative to where it was written."""

    __slots__ = ()

    def resolved(self, base: Path) -> Location:
        """The same with an absolute path; ``base`` is the folder of the config file, or the current one."""
        for scheme in _PATH_SCHEMES:
            if self.startswith(scheme):
                return Location(scheme + str((base / self[len(scheme) :]).resolve()))
        if "://" in self:
            return self
        return Location((base / self).resolve())

    @property
    def path(self) -> Path | None:
        """The file, or None if it is an address."""
        for scheme in _PATH_SCHEMES:
            if self.startswith(scheme):
                return Path(self[len(scheme) :])
        return None if "://" in self else Path(self)
