"""The session's machine alone: messages and time in, messages out, against a venue of a few lines."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.feed.backoff import Backoff
from nodes.feed.deribit_session import DeribitSession
from nodes.feed.session_settings import SECOND_NS, SessionSettings

NAMES = [f"BTC-27DEC30-{strike}-{right}" for strike in (50000, 60000, 70000) for right in "CP"]
SETTINGS = SessionSettings(
    currencies=("BTC",),
    kinds=("option",),
    channels=("ticker", "book"),
    channels_per_request=4,
    refresh_ns=60 * SECOND_NS,
)
STATE = "instrument.state.option.BTC"


def channels_of(*names: str) -> set[str]:
    return {f"{topic}.{name}.100ms" for name in names for topic in ("ticker", "book")}


class Venue:
    """What the venue would do: answers requests, one by one, as it is told to."""

    def __init__(self, settings: SessionSettings = SETTINGS) -> None:
        self.listed = dict.fromkeys(NAMES)
        self.channels: set[str] = set()
        self.now_ns = 1_000 * SECOND_NS
        self.session = DeribitSession(settings, self.now_ns)
        self.asked: list[dict[str, Any]] = []
        """Requests that were not answered yet."""
        self.history: list[str] = []
        self.tests = 0
        self.told: list[str] = []
        self.take()

    def take(self) -> None:
        for message in self.session.out:
            request = json.loads(message)
            assert request["jsonrpc"] == "2.0"
            if request["method"] == "public/test":
                self.tests += 1
            else:
                self.asked.append(request)
                self.history.append(request["method"].removeprefix("public/"))
        self.session.out.clear()
        self.told += self.session.told
        self.session.told.clear()
        assert len(self.asked) <= 1, "one request at a time"
        for request in self.asked:
            assert 0 < len(request["params"].get("channels", "x")) <= self.session.settings.channels_per_request

    def say(self, content: Any) -> None:
        self.session.on_message(content if isinstance(content, bytes) else json.dumps(content).encode(), self.now_ns)
        self.take()

    def notify(self, channel: str, data: Any) -> None:
        if channel in self.channels:
            self.say({"jsonrpc": "2.0", "method": "subscription", "params": {"channel": channel, "data": data}})

    def state(self, name: str, state: str) -> None:
        self.notify(STATE, {"instrument_name": name, "state": state, "timestamp": 1})

    def answer(self, *, without: int = 0) -> None:
        """Answer what was asked; a subscription lacks its last ``without`` channels."""
        request = self.asked.pop(0)
        params = request["params"]
        result: Any = "ok"
        match request["method"]:
            case "public/get_instruments":
                result = [{"instrument_name": name, "kind": "option"} for name in self.listed]
            case "public/get_instrument" if params["instrument_name"] in self.listed:
                result = {"instrument_name": params["instrument_name"], "kind": "option"}
            case "public/get_instrument":
                self.say({"id": request["id"], "error": {"code": 13020, "message": "not_found"}})
                return
            case "public/subscribe":
                result = params["channels"][: len(params["channels"]) - without]
                self.channels |= set(result)
            case "public/unsubscribe":
                self.channels -= set(params["channels"])
                result = params["channels"]
        self.say({"id": request["id"], "result": result, "usOut": 1})

    def refuse(self) -> None:
        self.say({"id": self.asked.pop(0)["id"], "error": {"code": 10028, "message": "too_many_requests"}})

    def wait(self, seconds: float) -> None:
        self.now_ns += round(seconds * SECOND_NS)
        self.session.on_time(self.now_ns)
        self.take()

    def settle(self) -> Venue:
        """Answer everything, and let the time pass that refused requests wait for."""
        for _ in range(300):
            if self.asked:
                self.answer()
            elif self.session.ready and self.session.quiet:
                return self
            else:
                self.say({"method": "heartbeat", "params": {"type": "heartbeat"}})
                self.wait(1)
        raise AssertionError(f"not ready: {self.history[-10:]}")

    def pass_lists(self) -> None:
        """A quiet minute, in which the lists come again."""
        for _ in range(31):
            self.say({"method": "heartbeat", "params": {"type": "heartbeat"}})
            self.wait(2)
            self.settle()


def test_the_order_of_a_session() -> None:
    venue = Venue().settle()
    assert venue.history == ["set_heartbeat", "subscribe", "get_instruments", *["subscribe"] * 3]
    assert venue.channels == venue.session.subscribed == {STATE} | channels_of(*NAMES)
    assert venue.session.counters.requests == 6


def test_a_test_request_is_answered_at_once_even_while_a_request_is_under_way() -> None:
    venue = Venue()
    assert len(venue.asked) == 1
    venue.say({"jsonrpc": "2.0", "method": "heartbeat", "params": {"type": "test_request"}})
    assert (venue.tests, len(venue.asked)) == (1, 1)


def test_new_strikes_are_asked_for_and_subscribed_and_expired_ones_dropped() -> None:
    venue = Venue().settle()
    new = "BTC-27DEC30-80000-C"
    venue.listed[new] = None
    venue.state(new, "created")
    venue.state(new, "open")
    venue.settle()
    assert venue.history[-2:] == ["get_instrument", "subscribe"]
    assert venue.channels == {STATE} | channels_of(*NAMES, new)
    del venue.listed[NAMES[0]]
    venue.state(NAMES[0], "closed")
    venue.settle()
    assert venue.channels == venue.session.subscribed == {STATE} | channels_of(*NAMES[1:], new)
    assert (venue.session.counters.listed, venue.session.counters.dropped) == (1, 1)


def test_what_the_venue_did_not_say_is_found_with_the_next_lists() -> None:
    venue = Venue().settle()
    venue.listed["BTC-27DEC30-90000-P"] = venue.listed.pop(NAMES[1])
    venue.pass_lists()
    assert venue.channels == {STATE} | channels_of(*venue.listed)


def test_an_instrument_that_goes_while_its_subscription_is_under_way_is_taken_off() -> None:
    venue = Venue()
    while venue.history[-1] != "subscribe" or len(venue.history) < 4:
        venue.answer()
    name = venue.asked[0]["params"]["channels"][0].split(".")[1]
    del venue.listed[name]
    venue.state(name, "terminated")
    venue.settle()
    assert venue.channels == {STATE} | channels_of(*venue.listed)


def test_a_book_is_taken_off_before_it_is_subscribed_again() -> None:
    venue = Venue().settle()
    channel = f"book.{NAMES[0]}.100ms"
    venue.session.resubscribe([channel, channel, "book.BTC-1JAN30-1-C.100ms"], venue.now_ns)
    venue.take()
    assert (venue.history[-1], venue.asked[0]["params"]["channels"]) == ("unsubscribe", [channel])
    venue.answer()
    assert (venue.history[-1], venue.asked[0]["params"]["channels"]) == ("subscribe", [channel])
    venue.settle()
    assert channel in venue.channels
    assert venue.session.counters.resubscribed == 1


def test_a_refused_request_waits_and_is_sent_again() -> None:
    venue = Venue()
    venue.refuse()
    assert not venue.asked
    assert venue.session.due_ns == venue.now_ns + SETTINGS.retry_ns
    venue.wait(0.499)
    assert not venue.asked
    venue.wait(0.001)
    assert venue.asked[0]["method"] == "public/set_heartbeat"
    venue.settle()
    assert any("too_many_requests (10028)" in text for text in venue.told)


def test_a_channel_that_is_always_refused_is_found_and_left_out_alone() -> None:
    bad = f"book.{NAMES[3]}.100ms"
    venue = Venue()
    for _ in range(100):
        if not venue.asked:
            if venue.session.quiet:
                break
            venue.wait(1)
        elif bad in venue.asked[0]["params"].get("channels", ()):
            venue.refuse()
        else:
            venue.answer()
    assert venue.channels == {STATE} | channels_of(*NAMES) - {bad}
    assert venue.session.counters.rejected == 1
    assert [text for text in venue.told if bad in text]
    venue.pass_lists()
    assert bad in venue.channels, "asked for again with the next lists"


def test_a_request_that_is_refused_for_good_ends_the_session() -> None:
    venue = Venue()
    for _ in range(5):
        venue.refuse()
        venue.wait(8)
    assert "public/set_heartbeat was refused 5 times: too_many_requests (10028)" in venue.session.failure


def test_silence_and_a_missing_answer_end_the_session() -> None:
    venue = Venue().settle()
    assert venue.session.due_ns == venue.now_ns + 20 * SECOND_NS
    venue.wait(19.9)
    assert venue.session.failure == ""
    venue.wait(0.1)
    assert "nothing was received for 20.0 s" in venue.session.failure
    other = Venue()
    for _ in range(10):
        other.say({"method": "heartbeat", "params": {"type": "heartbeat"}})
        other.wait(1)
    assert other.session.failure == "no answer to public/set_heartbeat within 10 s"


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"\xff\xfe", b"[1]", b"null", b'{"method": 5}', b"[" * 5000, b'{"id": {}}', b'{"params": 1}',
     b'{"method":"subscription","params":{"channel":"instrument.state.option.BTC","data":{"state":1}}}'],
)  # fmt: skip
def test_what_is_no_message_is_counted_and_changes_nothing(payload: bytes) -> None:
    venue = Venue().settle()
    venue.say(payload)
    assert venue.session.counters.malformed == 1
    assert venue.session.quiet
    assert venue.session.failure == ""


def test_an_answer_that_is_nonsense_is_asked_for_again() -> None:
    venue = Venue()
    venue.answer()
    venue.answer()
    assert venue.history[-1] == "get_instruments"
    venue.say({"id": venue.asked.pop()["id"], "result": {"instrument_name": 5}})
    venue.settle()
    assert venue.channels == {STATE} | channels_of(*NAMES)


def test_no_more_than_max_instruments_are_followed_those_that_expire_first() -> None:
    venue = Venue(
        SessionSettings(currencies=("BTC",), kinds=("option",), channels=("ticker",), max_instruments=4)
    ).settle()
    assert len(venue.channels) == 1 + 4
    assert any("2 BTC instruments (option) are left out" in text for text in venue.told)


ACTIONS = st.sampled_from(
    [
        "answer",
        "answer",
        "answer",
        "refuse",
        "reject",
        "list",
        "hide",
        "expire",
        "vanish",
        "break",
        "wait",
        "noise",
        "test",
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(ACTIONS, max_size=80), st.randoms(use_true_random=False))
def test_whatever_happened_all_that_is_listed_is_subscribed_in_the_end(history: list[str], draw: Any) -> None:
    venue = Venue()
    tests = 0
    for action in history:
        if venue.session.failure:
            break
        options = list(venue.listed)
        match action:
            case "answer" if venue.asked:
                venue.answer()
            case "refuse" if venue.asked:
                venue.refuse()
            case "reject" if venue.asked:
                venue.answer(without=draw.randint(0, 2))
            case "list" | "hide":
                name = f"BTC-27DEC30-{draw.randint(1, 9)}000-C"
                venue.listed[name] = None
                if action == "list":
                    venue.state(name, draw.choice(["created", "started", "open"]))
            case "expire" | "vanish" if options:
                name = draw.choice(options)
                del venue.listed[name]
                if action == "expire":
                    venue.state(name, draw.choice(["closed", "terminated", "delivered", "archivized"]))
            case "break" if options:
                venue.session.resubscribe([f"book.{draw.choice(options)}.100ms"], venue.now_ns)
                venue.take()
            case "wait":
                venue.wait(draw.choice([0.1, 1.0, 4.0]))
            case "noise":
                venue.say(draw.choice([b"{", b'{"id": 99999, "result": "ok"}', b'{"method": "other"}']))
            case "test":
                venue.say({"method": "heartbeat", "params": {"type": "test_request"}})
                tests += 1
    assert venue.tests == tests
    if venue.session.failure:
        assert "refused 5 times" in venue.session.failure or "within 10 s" in venue.session.failure
        return
    venue.settle()
    venue.pass_lists()
    assert venue.channels == venue.session.subscribed == {STATE} | channels_of(*venue.listed)


@given(st.integers(1, 10**9), st.integers(1, 100), st.lists(st.floats(0, 0.999), min_size=1, max_size=60))
def test_backoff_doubles_within_its_bounds_and_begins_anew(least_ns: int, factor: int, draws: list[float]) -> None:
    numbers = iter(draws)
    backoff = Backoff(least_ns, least_ns * factor, lambda: next(numbers))
    for place, number in enumerate(draws):
        expected = min(least_ns * factor, least_ns * 2 ** min(place, 10))
        assert backoff.next_ns() == min(least_ns * factor, int(expected * (0.5 + number)))
    backoff.reset()
    numbers = iter([0.5])
    assert backoff.next_ns() == least_ns
