"""What a subscription's reader takes next, and how it waits for it.

Items come three ways, and always in order: handed over by whoever turns the hub (events, what was replayed, snapshots),
pulled from a lane or a mapped log by the reader, or, where one channel is all there is, taken with the wait itself.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Collection
from typing import TYPE_CHECKING

from fabric.client.bell import Bell, Waiter
from fabric.client.conflation import Item, conflate_items, cut
from fabric.client.feed import Feed
from fabric.client.hub import Hub
from fabric.client.policy import ORDERED, Policy
from fabric.errors import Closed, SlowReader, UserMistake
from fabric.protocol.events import Event
from fabric.protocol.types import Origin, Run
from fabric.transport.receiver import ChannelReceiver
from native.follow import Found, Idle, LogCursor

if TYPE_CHECKING:
    from fabric.client.connection import Client
    from fabric.client.instruments import SymbolFilter

QUEUE_RECORDS = 262_144
"""Records that wait for the reader, beside those in the machines. What is above stays on the wire, then in the log."""

_PULLS_AT_ONCE = 64
"""What a reader that wants the newest looks at before it is given something, where there is always more."""

_DEFINITIONS_WAIT_S = 1.0
_WAIT_S = 0.5
_LONG_S = 3600.0
_ITEMS_A_ROUND = 64
_ALL = 1 << 62
_STATE, _RECORDS = int(Found.STATE), int(Found.RECORDS)
_log = logging.getLogger("fabric.client")


class Intake:
    """``bell.lock`` guards it; what a reader calls without the lock says so."""

    def __init__(
        self,
        client: Client,
        hub: Hub,
        feeds: list[Feed],
        chosen: SymbolFilter | None,
        idle: Idle,
        policy: Policy = ORDERED,
    ) -> None:
        self.bell = Bell(idle)
        self._policy = policy
        self._latest = policy.word == "latest"
        self._unchecked = list(feeds) if self._latest else []
        """Those whose record type is not known yet to be one that may be conflated."""
        self._kept_up = {feed for feed in feeds if feed.receiver.machine.start.mode in ("live", "snapshot")}
        """Those whose reader was not too far behind when it last looked. What it begins with is not its slowness."""
        self.idle = idle
        self.failure: BaseException | None = None
        self.closing = False
        self._client = client
        self._hub = hub
        self._feeds = feeds
        self._failed: Feed | None = None
        self._ended = 0
        self._by_packets = set(feeds)
        """Those that come by socket: while there are any a reader waits for the sockets itself."""
        self._by_channel = {feed.receiver: feed for feed in feeds}
        self._chosen = chosen
        self._only = feeds[0] if len(feeds) == 1 and chosen is None else None
        self._ripe: OrderedDict[Feed, None] = OrderedDict.fromkeys(feeds)  # a dict seeks its first key ever longer
        """Those that may have something to be pulled, the one whose turn it is first."""
        self._pulls: dict[Feed, LogCursor] = {}
        self.channel_of: dict[LogCursor, ChannelReceiver] = {}
        """Of those cursors."""
        self._pulled_feeds: list[Feed] = []
        """In the order of the cursors in ``bell.logs``."""
        self.cursor: LogCursor | None = None
        """Of the only channel, if its log is mapped."""
        self._ready: deque[Item] = deque()
        self._ready_records = 0
        self._fresh = False
        """Something was added to what is ready since that was conflated."""
        self._full = False
        self._definitions_by_s: float | None = None

    @property
    def behind(self) -> int:
        """Records that have been received and wait to be read."""
        return self._ready_records + sum(feed.waiting_records for feed in self._feeds)

    @property
    def waits_for_definitions(self) -> bool:
        """What is next is held back for a moment; whenever anything happens it is to be looked at again."""
        return self._definitions_by_s is not None

    def check(self) -> None:
        """Raises what ended it."""
        if self._hub.pid != os.getpid():
            self._hub.check()
        if self.closing:
            raise Closed(f"the subscription to {','.join(each.channel for each in self._feeds)!r} is closed")
        if self.failure is not None:
            raise self.failure
        self._hub.check()
        if self._failed is not None:
            self._failed.check()
        if self._unchecked:
            self._check_records()

    def _check_records(self) -> None:
        for feed in list(self._unchecked):
            if feed.record is not None:
                self._policy.check_record(feed.channel, feed.record)
                self._unchecked.remove(feed)

    @property
    def over(self) -> bool:
        """The reader has been told of every channel's end."""
        return self._ended == len(self._feeds)

    def end(self, feed: Feed) -> None:
        """The reader is told that the channel has ended."""
        feed.ended = True
        self._ended += 1

    # Handed over

    def hand_over(self, channels: Collection[ChannelReceiver]) -> bool:
        """Take what these channels' machines have; True if the reader has anything new to look at."""
        moved = self._definitions_by_s is not None
        taking = deque(feed for each in channels if (feed := self._by_channel.get(each)) is not None)
        for feed in taking:
            if feed.receiver.machine.failure:
                self._failed = feed
            if feed.receiver.mapped is None:
                self._by_packets.add(feed)
            else:
                self._by_packets.discard(feed)
            if feed.receiver.behind or feed.receiver.closed_cursor:
                self._ripe[feed] = None
                moved = True
        # Bounded: what the reader does not take stays in the machines, which then pass over live packets and replay them.
        while taking and self._ready_records < QUEUE_RECORDS:
            feed = taking.popleft()
            for _ in range(_ITEMS_A_ROUND):  # by turns: a busy channel keeps no other one waiting
                if self._ready_records >= QUEUE_RECORDS or (item := feed.receiver.machine.take()) is None:
                    break
                self._append(feed, item)
                moved = True
            else:
                taking.append(feed)
            if self._latest and self._ready_records >= QUEUE_RECORDS:
                self._conflate()
                if feed not in taking:
                    taking.append(feed)
        full = self._ready_records >= QUEUE_RECORDS
        if full and not self._full:
            _log.warning(
                "the reader of %s does not keep up: %d records wait for it; when as many again do, live packets are passed "
                "over, and replayed when it reads on",
                ",".join(feed.channel for feed in self._feeds),
                self.behind,
            )
        self._full = full
        return moved

    def ripen(self, channels: Collection[ChannelReceiver]) -> None:
        """Their lanes have records; nothing else is new of them."""
        for channel in channels:
            self._ripe[self._by_channel[channel]] = None

    def _append(self, feed: Feed, item: Run | Event) -> None:
        self._ready.append((feed, item, feed.stale))
        self._fresh = True
        if isinstance(item, Run):
            self._ready_records += len(item.records)

    def _conflate(self) -> None:
        self._ready_records -= conflate_items(self._ready)
        self._fresh = False

    # Taken by the reader

    def pop(self, max_records: int | None) -> Item | None:
        """The next item, if it can be handed out now. Raises what ended it where there is none."""
        before = self._ready_records
        if self._latest:
            self._gather()
        if not self._ready and not self._pull(max_records):
            if not self.over:
                self.check()
            return None
        if self.closing or self._unchecked or self._hub.pid != os.getpid():
            self.check()
        feed, item, stale = self._ready[0]
        if not isinstance(item, Run):
            return self._ready.popleft()
        if self._policy.max_behind:
            self._check_behind(feed, item)
        if not self._definitions_known(item):
            return None
        self._ready.popleft()
        snapshot, old = item.origin == Origin.SNAPSHOT, False
        count = len(item.records) if max_records is None or snapshot else min(len(item.records), max_records)
        if self._policy.max_age_ns and not snapshot:
            count, old = self._policy.of_one_age(item.records["ts_publish_ns"][:count])
        if count < len(item.records):
            item, rest = cut(item, count)
            self._ready.appendleft((feed, rest, stale))
        self._ready_records -= count
        if not snapshot:
            feed.handed += count
        if self._full and self._ready_records < QUEUE_RECORDS // 2 <= before:
            self._hub.wake()  # there is room again
        return feed, item, stale or old

    def _gather(self) -> None:
        """All that is there now, conflated."""
        for _ in range(_PULLS_AT_ONCE):
            if not self._pull(None):
                break
        if self._unchecked:
            self._check_records()
        if self._fresh:
            self._conflate()

    def _check_behind(self, feed: Feed, item: Run) -> None:
        """Raises SlowReader, once each time that it comes to this."""
        of_session = item.session == feed.session
        last = max(item.last, feed.newest) if of_session else item.last
        if item.origin == Origin.SNAPSHOT or last - item.first < self._policy.max_behind:
            self._kept_up.add(feed)
        elif feed in self._kept_up:
            self._kept_up.discard(feed)
            raise SlowReader(feed.channel, item.first, last, self._policy.max_behind)

    def _pull(self, max_records: int | None) -> bool:
        """Take the next records of a mapped log or a lane; False if there are none."""
        if self.closing:
            return False
        if not self._ripe:
            self._look_around()
        while self._ripe:
            feed, _ = self._ripe.popitem(last=False)
            run = self._pull_from(feed, _ALL if max_records is None else max_records)
            if run is not None:
                self._ripe[feed] = None  # by turns
                self._append(feed, run)
                return True
        return False

    def _look_around(self) -> None:
        """See which channels have something to be pulled."""
        for position in self.bell.logs.ready():
            self._ripe[self._pulled_feeds[position]] = None
        if self._only is not None:
            self._ripe[self._only] = None
        elif len(self._pulled_feeds) < len(self._feeds):
            self._hub.glance()

    def _pull_from(self, feed: Feed, max_records: int) -> Run | None:
        receiver = feed.receiver
        if receiver.mapped is None:
            return receiver.pull_lane(min(max_records, QUEUE_RECORDS))
        cursor = receiver.open_cursor()
        if cursor is None:
            return None
        if self._pulls.get(feed) is not cursor:
            self._wait_for(feed, cursor)
        run = receiver.pull_log(max_records)
        if run is None and cursor.overrun:
            self._hub.wake()
        return run

    def _wait_for(self, feed: Feed, cursor: LogCursor) -> None:
        """Records that this cursor gives end a reader's wait."""
        if (before := self._pulls.get(feed)) is not None:
            self.bell.logs.remove(before)
            self._pulled_feeds.remove(feed)
            del self.channel_of[before]
        self.channel_of[cursor] = feed.receiver
        self.bell.logs.add(cursor)
        self._pulled_feeds.append(feed)
        self._pulls[feed] = cursor
        if feed is self._only:
            self.cursor = cursor

    def _definitions_known(self, run: Run) -> bool:
        """Definitions travel in a channel of their own: give one that is on its way a moment."""
        if self._chosen is None or not self._chosen.unknown(run.records):
            self._definitions_by_s = None
            return True
        now_s = time.monotonic()
        if self._definitions_by_s is None:
            self._definitions_by_s = now_s + _DEFINITIONS_WAIT_S
        if now_s < self._definitions_by_s:
            return False
        self._definitions_by_s = None
        self._chosen.give_up(run.records)
        return True

    # Waiting, without the lock

    @property
    def alone(self) -> ChannelReceiver | None:
        """Its one channel, if nothing was handed over that comes before the channel's next records."""
        return self._only.receiver if self._only is not None and not self._ready else None

    @property
    def rests(self) -> bool:
        """Nothing was handed over, and nothing has ended it."""
        return not (self._ready or self.closing or self.failure or self._failed)

    @property
    def cursors(self) -> Collection[LogCursor]:
        """Of the mapped logs that it reads."""
        return self._pulls.values()

    def _has_items(self) -> bool:
        return bool(self._ready) and self._definitions_by_s is None

    def wait(self, waiter: Waiter, deadline: float | None, *, for_items: bool = True) -> bool:
        """Wait for a change, or (``for_items``) until there is something to read: False when the deadline (time.monotonic)
        has passed."""
        if self._hub.owner == threading.get_ident():
            raise UserMistake(
                "waiting here would stop the thread that receives: the event loop, or on_state's",
                remedy="use async for, or await poll_async()",
            )
        left_s = _WAIT_S if deadline is None else deadline - time.monotonic()
        if left_s <= 0:
            return False
        left_s = min(left_s, _WAIT_S)  # so that Ctrl-C is noticed everywhere
        if self._definitions_by_s is not None:
            left_s = min(left_s, self.patience_s())
        if self._by_packets:
            if len(self._by_packets) < len(self._feeds):
                self._hub.rearm(self.cursors)  # for both at once
            if self._hub.lead(int(left_s * 1e9), self.idle, self._has_items if for_items else None):
                return True
        found = waiter.wait(left_s)
        if found == _STATE or (found == _RECORDS and any(each.overrun for each in self._pulls.values())):
            self._hub.wake()  # the log has ended, or goes on elsewhere; or it was faster
        return True

    def patience_s(self) -> float:
        """How long to wait at most: definitions that are on their way are not waited for longer."""
        if self._definitions_by_s is None:
            return _LONG_S
        return max(0.001, self._definitions_by_s - time.monotonic())
