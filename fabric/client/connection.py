"""``fabric.connect``: the client. Any number of subscriptions and tables over one receiver."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from fabric.channel import check_channel_name
from fabric.client.endpoints import find_endpoints, find_topology
from fabric.client.feed import Feed
from fabric.client.hub import Hub
from fabric.client.instruments import Instruments, SymbolFilter
from fabric.client.policy import Policy, PolicyWord
from fabric.client.publishing import ChannelWriter, publish
from fabric.client.subscription import StateChange, Subscription
from fabric.client.table import Table
from fabric.config.curve import service_client_curve
from fabric.config.topology import Topology
from fabric.errors import Closed, ConfigError, NotConnected, UserMistake
from fabric.protocol.events import Lost
from fabric.protocol.types import Limits, PathWanted, Start
from fabric.records import RecordType
from fabric.times import to_ns
from fabric.transport.security import CurveClient
from fabric.transport.services import Requester
from fabric.transport.sockets import check_endpoint
from native.follow import Idle

if TYPE_CHECKING:
    from fabric.client.loop import LoopDriver

StartAt = str | int | datetime | np.datetime64 | Start
Symbols = str | Sequence[str] | None
Where = tuple[str | Sequence[str] | None, str | Sequence[str] | None, tuple[str, str] | None]
"""``data``, ``replay`` and ``standby``, as given."""
_DEFINITIONS_WAIT_S = 2.0
_SLACK_NS = 1_000_000_000
IdleWord = Literal["block", "yield", "spin"]
_IDLE = {"block": Idle.BLOCK, "yield": Idle.YIELD, "spin": Idle.SPIN}
_WORDS = ("snapshot", "first", "live")


def connect(config: str | Path | None = None, *, idle: IdleWord = "block") -> Client:
    """The client of a fabric. ``config`` is a TOML file or a run's directory (default ``$FABRIC_CONFIG``); it is read when
    it is first needed, so that channels can also be given by their endpoints. ``idle``: how readers wait for a log on this
    host: asleep (``"block"``), giving way to others (``"yield"``), or with a whole core (``"spin"``).

    In ``with``, one thread receives for everything; in ``async with``, the running event loop does, without a thread.
    """
    return Client(config, idle=idle)


def subscribe(
    channel: str,
    *,
    config: str | Path | None = None,
    data: str | Sequence[str] | None = None,
    replay: str | Sequence[str] | None = None,
    standby: tuple[str, str] | None = None,
    curve: CurveClient | None = None,
    record: RecordType | None = None,
    symbols: Symbols = None,
    start: StartAt = "snapshot",
    on_lost: Callable[[Lost], object] | None = None,
    on_state: Callable[[StateChange], object] | None = None,
    limits: Limits | None = None,
    path: PathWanted | None = None,
    idle: IdleWord = "block",
    policy: PolicyWord = "ordered",
    max_behind: int | None = None,
    max_age: str | int | None = None,
    clock_ns: Callable[[], int] | None = None,
) -> Subscription:
    """Subscribe to one channel with a client of its own; returns at once. As ``Client.subscribe``; ``idle`` as for
    ``connect``."""
    slow = Policy.of(policy, max_behind, max_age, clock_ns)
    client = Client(config, idle=idle)
    try:
        return client._subscribe(
            [channel],
            (data, replay, standby),
            curve,
            record,
            symbols,
            start,
            on_lost,
            on_state,
            limits,
            path,
            slow,
            owns_client=True,
        )
    except BaseException:
        client.close()
        raise


class Client:
    """A connection to a fabric's channels. Use it in ``with`` or ``async with``, or ``close`` it."""

    def __init__(self, config: str | Path | None = None, *, idle: IdleWord = "block") -> None:
        if idle not in _IDLE:
            raise ConfigError(f"idle={idle!r}", remedy=", ".join(_IDLE))
        self._config = config
        self._idle = _IDLE[idle]
        self._topology: Topology | None = None
        self._instruments: Instruments | None = None
        self._loop_driver: LoopDriver | None = None
        self._requesters: dict[tuple[str, CurveClient | None], Requester] = {}
        self._hub = Hub()
        # The hub's thread knows nothing of this object: dropping the last reference ends it, as does the interpreter.
        self._finalizer = weakref.finalize(self, self._hub.stop)

    @property
    def topology(self) -> Topology:
        """The checked config: nodes, channels, endpoints. Raises ConfigError."""
        if self._topology is None:
            self._topology = find_topology(self._config)
        return self._topology

    def subscribe(
        self,
        *channels: str,
        data: str | Sequence[str] | None = None,
        replay: str | Sequence[str] | None = None,
        standby: tuple[str, str] | None = None,
        curve: CurveClient | None = None,
        record: RecordType | None = None,
        symbols: Symbols = None,
        start: StartAt = "snapshot",
        on_lost: Callable[[Lost], object] | None = None,
        on_state: Callable[[StateChange], object] | None = None,
        limits: Limits | None = None,
        path: PathWanted | None = None,
        policy: PolicyWord = "ordered",
        max_behind: int | None = None,
        max_age: str | int | None = None,
        clock_ns: Callable[[], int] | None = None,
    ) -> Subscription:
        """Subscribe to channels; returns at once.

        Where they are comes from the config, or (one channel) from ``data=`` and ``replay=`` endpoints, with ``curve=`` keys
        where those are encrypted; several ``data`` are lines of one publisher, that all bring the same; after the log
        server ``replay`` may name archives, to be asked for what it has no more; ``standby`` is where a standby publishes once
        it has taken the channel over, and its log server. ``start``:
        ``"snapshot"`` (an image, then every record), ``"first"``, ``"live"``, a sequence, or an aware datetime (the first
        record published then or later). ``symbols`` takes globs such as ``"BTC-*"`` (needs a config). ``record`` states
        the type you expect; without it, it is learnt. ``on_lost`` is called in place of raising RecordsLost; ``on_state``
        when a channel's state or staleness changes, where packets are received: be quick there. ``path``: ``"auto"`` maps the
        publisher's log where that is on this host and its publisher runs, ``"local"`` does nothing else, ``"ipc"`` and
        ``"tcp"`` receive packets (default: as the config says, else auto); ``subscription.path`` tells which one it is.

        ``policy``, where the reader is slow: ``"ordered"`` gives it every record, if need be from the log; ``"latest"``
        gives it, of all that waits when it looks, the newest record of each key, in order of sequence, and counts the
        others (``counters.conflated``); ``"fail"`` raises SlowReader once more than ``max_behind`` records wait, and then
        goes on with them. Each record of a type that is not to be conflated counts: ``"latest"`` raises UserMistake then,
        here where ``record`` is given, else where the type is learnt and before anything is read.

        ``max_age`` (``"250ms"``, or nanoseconds): of records whose ts_publish_ns is further back than this by
        ``clock_ns`` (default: the system's UTC) when they are handed out, ``batch.stale`` is true; they never share a
        batch with younger ones. Snapshots are not judged by age.

        Raises ConfigError, UnknownChannel.
        """
        return self._subscribe(
            list(channels),
            (data, replay, standby),
            curve,
            record,
            symbols,
            start,
            on_lost,
            on_state,
            limits,
            path,
            Policy.of(policy, max_behind, max_age, clock_ns),
            owns_client=False,
        )

    def table(
        self,
        channel: str,
        *,
        data: str | Sequence[str] | None = None,
        replay: str | Sequence[str] | None = None,
        standby: tuple[str, str] | None = None,
        curve: CurveClient | None = None,
        record: RecordType | None = None,
        limits: Limits | None = None,
        path: PathWanted | None = None,
    ) -> Table:
        """The last record for each instrument (or key) of a channel, kept current in the background."""
        feed = self._feed(channel, (data, replay, standby), curve, record, Start.snapshot(), limits, path)
        self._begin()
        return Table(self, self._hub, feed)

    @property
    def instruments(self) -> Instruments:
        """The definitions of every instrument channel of the config, kept current in the background. Raises ConfigError
        where the config has none."""
        if self._instruments is None:
            names = _definition_channels(self.topology)
            if not names:
                raise ConfigError(
                    "there is no channel of instrument definitions",
                    file=str(self.topology.source.file),
                    remedy="name one in [channels], or wire a port called instrument",
                )
            feeds = [self._feed(name, (None, None, None), None, None, Start.snapshot(), None, None) for name in names]
            self._instruments = Instruments(self._hub, feeds)
            self._hub.add(self._instruments, self._instruments.channels)
            self._begin()
        return self._instruments

    def known_symbols(self) -> dict[int, str] | None:
        """id ▸ symbol of all definitions; waits two seconds at most for them, the first time. None where the config has no
        channel of definitions, or nobody sends any."""
        try:
            instruments = self.instruments
            if self._hub.owner == threading.get_ident():  # in the loop that receives: then it receives here, meanwhile
                self._hub.turn_here(lambda: instruments.complete, _DEFINITIONS_WAIT_S)
            else:
                instruments.wait(_DEFINITIONS_WAIT_S)
            return instruments.symbols() or None
        except (ConfigError, NotConnected, Closed):
            return (self._instruments.symbols() or None) if self._instruments else None

    def publish(self, channel: str, record: RecordType, **options: Any) -> ChannelWriter:
        """As ``fabric.publish``, with this client's config."""
        options.setdefault("config", self._config)
        return publish(channel, record, **options)

    def request(
        self,
        service: str,
        body: Any = None,
        *,
        timeout: float | None = 5.0,
        key: bytes | None = None,
        endpoint: str | None = None,
        curve: CurveClient | None = None,
    ) -> Any:
        """Ask a service and return the body of its reply; bodies are plain data (what msgpack carries: numbers, text,
        bytes, lists, dicts), at most 1 MiB packed. From any thread.

        It is sent again until there is an answer or ``timeout`` seconds are over (None: without limit), and one call is
        carried out at most once, also where the server is killed and started again meanwhile. ``key`` (16 bytes; made
        where it is not given) says that several calls are one request: the server that carried it out answers with the
        reply that it kept; a server that was started since carries it out again.

        Raises UserMistake (body, key: nothing was sent), ConfigError, RequestFailed (its handler raised, there is no such
        service there, or its reply can't be carried), RequestTimedOut (no answer, or the server was restarted: whether it
        was done is not known; its ``key`` asks again), Closed.
        """
        return self._request(None, service, body, timeout=timeout, key=key, endpoint=endpoint, curve=curve)

    async def request_async(self, service: str, body: Any = None, **options: Any) -> Any:
        """As ``request``, for coroutines, any number at a time: each waits in a thread of its own. One that is cancelled is
        not sent again; whether it is carried out is not known."""
        import asyncio

        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        abandoned = threading.Event()

        def deliver(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        def ask() -> None:
            result, error = None, None
            try:
                result = self._request(abandoned, service, body, **options)
            except BaseException as raised:  # it belongs to who awaits
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                loop.call_soon_threadsafe(deliver, result, error)

        # No executor: the loop's end waits for its threads, and its few would be all that can wait at a time.
        threading.Thread(target=ask, name="fabric-request", daemon=True).start()
        try:
            return await future
        finally:
            abandoned.set()

    def _request(
        self,
        abandoned: threading.Event | None,
        service: str,
        body: Any,
        *,
        timeout: float | None = 5.0,
        key: bytes | None = None,
        endpoint: str | None = None,
        curve: CurveClient | None = None,
    ) -> Any:
        self._hub.check()
        if endpoint is None:
            endpoint, curve = self.topology.service_endpoint(service), service_client_curve(self.topology, service)
        else:
            check_channel_name(service)
        requester = self._requesters.get((endpoint, curve))
        if requester is None:
            checked = check_endpoint(endpoint, listens=False)
            requester = self._requesters.setdefault((endpoint, curve), Requester(checked, curve=curve))
        return requester.ask(service, body, timeout=timeout, key=key, abandoned=abandoned)

    def close(self) -> None:
        """Close every subscription and table. From any thread, any number of times; nothing in a forked child."""
        self._finalizer()
        for requester in self._requesters.values():
            requester.close()

    @property
    def closed(self) -> bool:
        return self._hub.closing

    def drive_by_loop(self) -> None:
        """Receive in the running event loop from now on, in place of a thread; ``async with`` does it."""
        if self._hub.closing:
            return
        import asyncio

        from fabric.client.loop import LoopDriver

        driver = self._loop_driver
        if driver is not None and not driver.loop.is_closed():
            if driver.loop is not asyncio.get_running_loop():
                raise UserMistake("another event loop receives for this client", remedy="make a client in each loop")
            return
        self._loop_driver = LoopDriver(self._hub)

    def __enter__(self) -> Self:
        self._hub.check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        self._hub.check()
        self.drive_by_loop()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client of {self._config or 'no config'}{' closed' if self.closed else ''}>"

    # Inside

    def _subscribe(
        self,
        channels: list[str],
        where: Where,
        curve: CurveClient | None,
        record: RecordType | None,
        symbols: Symbols,
        start: StartAt,
        on_lost: Callable[[Lost], object] | None,
        on_state: Callable[[StateChange], object] | None,
        limits: Limits | None,
        path: PathWanted | None,
        policy: Policy,
        *,
        owns_client: bool,
    ) -> Subscription:
        if not channels:
            raise ConfigError("no channel was named", remedy='client.subscribe("demo.quote")')
        if record is not None:
            policy.check_record(channels[0], record)
        data = where[0]
        if len(channels) > 1 and data is not None:
            raise ConfigError("data= and replay= are for one channel", key=", ".join(channels))
        begin = _start(start, channels[0])
        patterns = (symbols,) if isinstance(symbols, str) else tuple(symbols or ())
        if patterns and data is not None:
            raise ConfigError("symbols= needs a config, to find the instrument definitions", key=channels[0])
        chosen = SymbolFilter(patterns, self.instruments) if patterns else None
        feeds = [
            self._feed(channel, where, curve, record, begin, limits, path, pulled=True)
            for channel in dict.fromkeys(channels)
        ]
        subscription = Subscription(
            self, self._hub, feeds, chosen, on_lost, on_state, owns_client=owns_client, idle=self._idle, policy=policy
        )
        self._begin()
        return subscription

    def _feed(
        self,
        channel: str,
        where: Where,
        curve: CurveClient | None,
        record: RecordType | None,
        start: Start,
        limits: Limits | None,
        path: PathWanted | None,
        *,
        pulled: bool = False,
    ) -> Feed:
        self._hub.check()
        data, replay, standby = where
        config = self._config if data is not None else self.topology
        endpoints = find_endpoints(channel, config, data, replay, curve, path, standby)
        limits = limits or endpoints.limits
        receiver = self._hub.subscribe(channel, start, endpoints, record, limits, pulled=pulled)
        return Feed(receiver, endpoints, self._hub.receiver)

    def _begin(self) -> None:
        if self._loop_driver is None:
            self._hub.start_thread("fabric-client")


def _definition_channels(topology: Topology) -> list[str]:
    """Channels wired to a port called ``instrument``, and those named ``….instrument``."""
    wired = [
        channel
        for node in topology.nodes.values()
        for port, channel in (*node.outputs.items(), *node.inputs.items())
        if port == "instrument"
    ]
    return list(dict.fromkeys([*wired, *(name for name in topology.channels if name.split(".")[-1] == "instrument")]))


def _start(start: StartAt, channel: str) -> Start:
    if isinstance(start, Start):
        return start
    if isinstance(start, datetime | np.datetime64):
        start_ns = to_ns(start)
        if start_ns > time.time_ns() + _SLACK_NS:
            raise ConfigError(
                f"start={start} is still to come", key=channel, remedy='"live" begins with the next record'
            )
        return Start.time(start_ns)
    if isinstance(start, str):
        if start not in _WORDS:
            raise ConfigError(
                f"start={start!r}", key=channel, remedy='"snapshot", "first", "live", a sequence or a datetime'
            )
        return Start(start)
    if not isinstance(start, int) or isinstance(start, bool) or not 0 < start < 1 << 63:
        raise ConfigError(f"start={start} is not a sequence", key=channel, remedy="sequences are from 1")
    return Start.at(start)
