"""What a node is: a class with inputs, outputs, typed config keys, and methods that the runtime calls.

A node opens no socket, reads no clock and draws no random number that it was not given: everything it does follows
from the calls made to it, so that those calls, written to the cycle journal, can be made again with the same result.
"""

from __future__ import annotations

import logging
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from fabric.errors import ConfigError
from fabric.protocol.events import Lost, Skipped
from fabric.records import Records
from fabric.runtime.ports import Input, InputPort, Output, OutputPort


class Node:
    """Base class of all nodes.

        class Skew(Node):
            greeks = Input("greeks")
            skew = Output(SKEW)
            wing: float = 0.25                      # a config key, typed, with a default

            def on_records(self, channel, records, now_ns):
                self.skew.append(put_iv=..., call_iv=..., cause=records)

    Config keys are the annotated class attributes (public names); a key without a default must be in the config.
    A relative path in a config key of type ``pathlib.Path`` or ``fabric.Location`` is relative to the file (or, on
    the command line, the folder) that it was written in.
    """

    inputs: ClassVar[dict[str, Input]] = {}
    outputs: ClassVar[dict[str, Output]] = {}
    timer_ns: int = 0
    """Call ``on_timer`` this often (0: never). Set it in ``on_start`` or as a class attribute without annotation."""

    log: logging.Logger

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.inputs = {
            name: port for base in reversed(cls.__mro__) for name, port in vars(base).items() if isinstance(port, Input)
        }
        cls.outputs = {
            name: port
            for base in reversed(cls.__mro__)
            for name, port in vars(base).items()
            if isinstance(port, Output)
        }

    def __init__(
        self,
        name: str,
        *,
        config: Mapping[str, Any] | None = None,
        inputs: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
        state_dir: Path | None = None,
    ) -> None:
        """Made by the runtime (and by tests): port name to channel name, config key to value."""
        self.name = name
        self.log = logging.getLogger(f"fabric.node.{name}")
        self.state_dir = state_dir
        """Where a node may lease identities that outlive a run (instrument ids); None in tests."""
        inputs, outputs = inputs or {}, outputs or {}
        self.input_ports = {
            key: InputPort(key, port.record, inputs.get(key, "")) for key, port in type(self).inputs.items()
        }
        self.output_ports = {
            key: OutputPort(key, port.record, outputs.get(key, "")) for key, port in type(self).outputs.items()
        }
        settings = dict(config or {})
        for key, (_, default) in config_keys(type(self)).items():
            value = settings.pop(key, default)
            if value is REQUIRED:
                raise ConfigError("is missing", key=f"nodes.{name}.{key}", remedy="this key has no default")
            setattr(self, key, value)
        if settings:
            raise ConfigError(f"unknown keys {sorted(settings)}", key=f"nodes.{name}")

    # What the runtime calls. All of it is optional but on_records (or, for a source, on_poll).

    def on_start(self) -> None:
        """Before the first call, after the config is set; also before ``restore``."""

    def on_records(self, channel: InputPort, records: Records, now_ns: int) -> None:
        """Records of one input, in sequence order, read-only; one run (never across a session or a hole)."""

    def on_own_image(self, output: OutputPort, records: Records) -> None:
        """Only where the node starts with an empty state in a run in which it has published before: the image of what
        this output holds, so that identities (instrument ids) can be taken over. After ``on_start``."""

    def on_timer(self, now_ns: int) -> None:
        """Every ``timer_ns``."""

    def on_lost(self, channel: InputPort, lost: Lost | Skipped) -> None:
        """Records that this input will never deliver, told exactly where they are missing."""

    def on_ended(self, channel: InputPort, now_ns: int) -> None:
        """The channel's source is finished and all of it was delivered."""

    def report(self) -> dict[str, Any]:
        """Plain data for the report's section of this node; keys under ``"top"`` are merged at the top."""
        return {}

    def checkpoint(self) -> dict[str, Any]:
        """All state that later output depends on, as plain data and numpy arrays (no pickles)."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what ``checkpoint`` returned."""


class Source(Node):
    """A node that brings records in from outside: it is asked when it has something, and then called.

    What it produces must follow from its state and ``now_ns``, so that journaled calls can be made again.
    """

    finite: bool = True
    """False if it never ends by itself."""

    def next_due_ns(self, now_ns: int) -> int | None:
        """When the next event is due (not after ``now_ns``: at once); None when the source is finished."""
        raise NotImplementedError

    def on_poll(self, now_ns: int) -> None:
        """Produce what is due at ``now_ns``, a bounded amount."""
        raise NotImplementedError

    # For a source with a connection. What comes in goes into a recording first; ``on_received`` then reads it there.
    # Only ``on_received`` is called again in resume and playback, with the numbers of the journal.

    def connect(self, wake: Callable[[], None]) -> None:
        """Live only, once, before the first call: start what brings bytes in, in a thread of its own, which calls
        ``wake`` when there is more. Resume and playback never call it."""

    def received(self) -> tuple[int, int]:
        """Live only, asked in every cycle: what has been recorded and not been given yet, a bounded amount, as (first,
        count) in numbers of the recording; count 0: nothing. It is journaled, and then given to ``on_received``."""
        return 0, 0

    def on_received(self, first: int, count: int, now_ns: int) -> None:
        """Produce what follows from this part of the recording. Raises LogError if it is not there any more."""

    def on_checkpointed(self, state: Mapping[str, Any]) -> None:
        """Live only: what ``checkpoint`` returned not long ago is on the disk; exact resume needs nothing from before it."""

    def disconnect(self) -> None:
        """Live only, at the end, also without ``connect``."""


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Any = _Required()
_NOT_CONFIG = {"inputs", "outputs", "timer_ns", "log", "finite"}


def config_keys(node: type[Node]) -> dict[str, tuple[Any, Any]]:
    """The config keys of a node class: name to (type, default or REQUIRED)."""
    keys: dict[str, tuple[Any, Any]] = {}
    hints = typing.get_type_hints(node, include_extras=True)
    for base in reversed(node.__mro__):
        for name in vars(base).get("__annotations__", {}):
            if name.startswith("_") or name in _NOT_CONFIG or typing.get_origin(hints[name]) is ClassVar:
                continue
            keys[name] = (hints[name], getattr(node, name, REQUIRED))
    return keys
