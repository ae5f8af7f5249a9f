"""When each reader missed records and got them back, and when each process ran: lanes over the time of the run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from fabric.report.figure import CHARACTER, box, boxes, figure, line, words
from fabric.report.markup import Markup, join, tag
from fabric.report.scales import Linear, linear_ticks, show_count, show_tick, show_time
from fabric.report.sections import Table
from fabric.report.tables import table
from fabric.runtime.gauges import STATES
from fabric.runtime.timeline import COUNTS, STALE_BIT, TimelineView
from fabric.supervise.lives import Life

MOST_BINS = 360
_WIDTH, _LEFT, _RIGHT = 1000.0, 170.0, 10.0
_LEGEND, _PROCESS, _LANE, _QUIET, _AXIS = 24.0, 18.0, 62.0, 26.0, 26.0
_HALF, _LEAST = 20.0, 1.5
"""Height of the tallest bar of a lane, and of the lowest: a few records are to be seen beside thousands."""
_RECOVERING = 1 << STATES.index("RECOVERING")
_UNITS = ((1e9, "s"), (60e9, "min"), (3600e9, "h"), (86_400e9, "d"))
_KINDS = (("missed", "missed"), ("recovered", "recovered"), ("lost", "lost"), ("skipped", "skipped"))
_STRIPS = (("live", "live"), ("recovering", "recovering"), ("stale", "stale"), ("down", "not reading"))


@dataclass(frozen=True, slots=True)
class Lane:
    """One input of one node, in bins wide enough to be drawn."""

    reader: str
    channel: str
    began_ns: int
    width_ns: int
    counts: dict[str, npt.NDArray[np.int64]]
    states: npt.NDArray[np.uint64]

    def total(self, name: str) -> int:
        return int(self.counts[name].sum())


def lanes_of(timelines: Mapping[str, TimelineView], most: int = MOST_BINS) -> list[Lane]:
    """The inputs of all nodes; neighbouring bins are joined until there are at most ``most``."""
    found = []
    for node, timeline in timelines.items():
        length = timeline.bins.shape[1]
        each = max(1, math.ceil(length / most))
        starts = np.arange(0, length, each)
        for (_, channel), bins in zip(timeline.inputs, timeline.bins, strict=True):
            counts = {name: np.add.reduceat(bins[name].astype(np.int64), starts) for name in COUNTS}
            states = np.bitwise_or.reduceat(bins["states"], starts)
            found.append(Lane(node, channel, timeline.began_ns, timeline.width_ns * each, counts, states))
    return found


def gaps(
    timelines: Mapping[str, TimelineView], lives: Mapping[str, Sequence[Life]], began_ns: int, ended_ns: int
) -> Markup:
    """The chart, and a table of the ends of processes that were followed by another life."""
    lanes = lanes_of(timelines)
    began_ns = min([began_ns or ended_ns, *(lane.began_ns for lane in lanes)])
    if not lanes and not lives:
        return tag("p", "No node of this run kept a timeline.", class_="note")
    height = _LEGEND + _PROCESS * len(lives) + sum(_height(lane) for lane in lanes) + _AXIS
    across = Linear(began_ns, max(ended_ns, began_ns + 1), _LEFT, _WIDTH - _RIGHT)
    inside = [*_legend(lanes), *_axis(began_ns, ended_ns, across, height)]
    y = _LEGEND
    for process, each in lives.items():
        inside += _process(process, each, ended_ns, across, y)
        y += _PROCESS
    for lane in lanes:
        inside += _lane(lane, across, y)
        y += _height(lane)
    inside += _ends(lives, across, height)
    drawn = figure(
        "Missed and recovered, by reader and channel",
        _description(lanes, lives, began_ns),
        _WIDTH,
        height,
        inside,
        wide=True,
    )
    note = ""
    if lanes:
        note = (
            f"Bars are records within {show_tick(lanes[0].width_ns)}: missed above the line, recovered, skipped and lost "
            "below; heights are square roots, each lane to its own scale. The strip under a lane is its state, and where "
            "there were several, the most notable."
        )
    return join([drawn, tag("p", note, class_="note"), *_restarts(lives, began_ns)])


def _legend(lanes: Sequence[Lane]) -> Iterable[Markup]:
    """Of what is to be seen, and no more."""
    x = _LEFT
    strips = {kind for lane in lanes for kind in _kinds(lane)}
    shown = [kind for kind in _KINDS if any(lane.total(kind[0]) for lane in lanes)]
    for kind, name in (*shown, *(kind for kind in _STRIPS if kind[0] in strips)):
        yield box(x, 4, 10, 10 if (kind, name) in _KINDS else 5, kind)
        yield words(x + 14, 13, name, kind="small")
        x += 14 + len(name) * CHARACTER + 16


def _axis(began_ns: int, ended_ns: int, across: Linear, height: float) -> Iterable[Markup]:
    span = ended_ns - began_ns
    unit_ns, unit = next(((size, name) for size, name in reversed(_UNITS) if span >= 3 * size), _UNITS[0])
    for tick in linear_ticks(0, span / unit_ns, 10):
        x = across(began_ns + tick * unit_ns)
        yield line(x, _LEGEND, x, height - _AXIS + 4, "grid")
        yield words(x, height - 8, f"{tick:g} {unit}", anchor="middle")


def _process(name: str, lives: Sequence[Life], ended_ns: int, across: Linear, top: float) -> Iterable[Markup]:
    yield words(0, top + 12, name, kind="name", most=_LEFT - 8)
    for life in lives:
        start, end = across(life.started_ns), across(life.ended_ns or ended_ns)
        yield box(start, top + 5, max(1.0, end - start), 7, "running", f"{name}: {life.how or 'running'}")


def _ends(lives: Mapping[str, Sequence[Life]], across: Linear, height: float) -> Iterable[Markup]:
    """A line through all lanes where a process ended that was started again."""
    for position, each in enumerate(lives.values()):
        for life in each[:-1]:
            x, top = across(life.ended_ns), _LEGEND + position * _PROCESS
            yield line(x, top + 2, x, height - _AXIS, "end")


def _height(lane: Lane) -> float:
    """A lane in which nothing happened needs no room for bars."""
    return _LANE if lane.total("missed") + int(_below(lane).sum()) else _QUIET


def _lane(lane: Lane, across: Linear, top: float) -> Iterable[Markup]:
    edges = [across(lane.began_ns + place * lane.width_ns) for place in range(len(lane.states) + 1)]
    columns = list(pairwise(edges))
    height = _height(lane)
    if height == _QUIET:
        yield words(0, top + 16, lane.reader, kind="name", most=58)
        yield words(60, top + 16, lane.channel, kind="soft", most=_LEFT - 66)
    else:
        yield words(0, top + 24, lane.reader, kind="name", most=_LEFT - 50)
        yield words(0, top + 38, lane.channel, kind="soft", most=_LEFT - 8)
        yield from _bars(lane, columns, top + 28)
    kinds = _kinds(lane)
    for kind, _ in _STRIPS:
        yield from boxes(_strips(columns, [each == kind for each in kinds], top + height - 12), kind)


def _bars(lane: Lane, columns: Sequence[tuple[float, float]], middle: float) -> Iterable[Markup]:
    """What was missed upwards, and what became of it downwards, one upon another."""
    most = max(int(lane.counts["missed"].max()), int(_below(lane).max()))
    yield words(_LEFT - 6, middle - 12, f"max {show_count(most)}", anchor="end", kind="small")
    yield line(_LEFT, middle, _WIDTH - _RIGHT, middle, "axis")

    def tall(count: int) -> float:
        return max(_LEAST, _HALF * math.sqrt(count / most)) if count else 0.0

    through = np.zeros(len(columns), np.int64)
    for name in ("missed", "recovered", "skipped", "lost"):
        bars = []
        for place in np.flatnonzero(lane.counts[name]).tolist():
            (left, right), count, above = columns[place], int(lane.counts[name][place]), int(through[place])
            top = middle - tall(count) if name == "missed" else middle + tall(above)
            bars.append((left, top, right - left - 0.6, max(_LEAST, tall(above + count) - tall(above))))
        through += 0 if name == "missed" else lane.counts[name]
        yield from boxes(bars, name)


def _below(lane: Lane) -> npt.NDArray[np.int64]:
    return lane.counts["recovered"] + lane.counts["skipped"] + lane.counts["lost"]


def _kinds(lane: Lane) -> list[str]:
    """Of each bin, the most notable state; what was missed was recovered or not, but recovery was under way."""
    kinds = []
    for state, missed in zip(lane.states.tolist(), (lane.counts["missed"] + lane.counts["gaps"]).tolist(), strict=True):
        if not state:
            kinds.append("down")
        elif state & STALE_BIT:
            kinds.append("stale")
        elif state & _RECOVERING or missed:
            kinds.append("recovering")
        else:
            kinds.append("live")
    return kinds


def _strips(
    columns: Sequence[tuple[float, float]], chosen: Sequence[bool], top: float
) -> list[tuple[float, float, float, float]]:
    """Neighbouring chosen columns as one rectangle."""
    strips: list[tuple[float, float, float, float]] = []
    for (left, right), here in zip(columns, chosen, strict=True):
        if here and strips and abs(strips[-1][0] + strips[-1][2] - left) < 1e-6:
            strips[-1] = (strips[-1][0], top, right - strips[-1][0], 5)
        elif here:
            strips.append((left, top, right - left, 5))
    return strips


def _restarts(lives: Mapping[str, Sequence[Life]], began_ns: int) -> list[Markup]:
    pairs = [(life, name, following) for name, each in lives.items() for life, following in pairwise(each)]
    rows = []
    for life, name, following in sorted(pairs, key=lambda each: each[0].ended_ns):
        after, pause = "–", "–"
        if life.ended_ns:
            after = f"{(life.ended_ns - began_ns) / 1e9:.2f} s"
            pause = show_time(following.started_ns - life.ended_ns)
        rows.append([after, name, life.how or "not seen", pause])
    header = ["after", "process", "how it ended", "started again after"]
    return [table(Table("Ends and restarts", header, rows, [">", "", "", ">"]))] if rows else []


def _description(lanes: Sequence[Lane], lives: Mapping[str, Sequence[Life]], began_ns: int) -> str:
    said = [
        f"{lane.reader} reading {lane.channel}: {show_count(lane.total('missed'))} missed, "
        f"{show_count(lane.total('recovered'))} recovered, {show_count(lane.total('lost'))} lost, "
        f"stale in {sum(kind == 'stale' for kind in _kinds(lane))} of {len(lane.states)} bins"
        for lane in lanes
    ]
    said += [f"{name} was started {len(each)} times" for name, each in lives.items() if len(each) > 1]
    return "; ".join(said) + "."
