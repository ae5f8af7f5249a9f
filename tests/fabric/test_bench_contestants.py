"""Who takes part in what: every contestant keeps the interface, every program says what it measures."""

from __future__ import annotations

import importlib

import pytest

from fabric.bench.case import Case, Options
from fabric.bench.job import FLOOD, PACED, VALUES
from fabric.bench.programs import MODULES, program, topology
from fabric.bench.registry import contestants, missing
from fabric.bench.results import _pairs


@pytest.mark.parametrize("contestant", contestants().values(), ids=lambda each: each.name)
def test_a_contestant_keeps_the_interface(contestant):
    module = importlib.import_module(contestant.module)
    assert contestant in module.CONTESTANTS
    assert contestant.kinds <= {PACED, FLOOD, VALUES}
    assert set(contestant.idle) <= {"block", "spin"}
    assert contestant.flow  # nobody is without: the output says how nothing is lost
    for name in ("make_sender", "make_receiver"):
        assert callable(getattr(module, name))
    assert isinstance(missing(contestant), str)


def test_what_is_not_installed_is_named_and_no_error(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    absent = {each.name: missing(each) for each in contestants().values() if each.optional and "C " not in each.name}
    assert {"iceoryx2", "zenoh", "nats-py", "redis-py", "aeron", "nautilus MessageBus"} <= set(absent)
    assert all(why.startswith("not installed (") for why in absent.values())


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("quick", [False, True])
def test_a_program_has_a_topology_and_contestants_for_each_case(name, quick):
    assert "sender process ]" in topology(name)
    cases = program(name).cases(Options(quick=quick))
    assert cases
    assert len({case.title for case in cases}) == len(cases)
    for case in cases:
        assert case.program == name
        taking = [each for each in contestants().values() if case.takes(each)]
        assert any(each.ours for each in taking)
        assert any(not each.ours for each in taking)
        job = case.job(taking[0], 1000, 0)
        assert job.warmup < job.count
        assert (job.rate > 0) == case.is_latency


def test_peers_are_beside_ours_over_the_same_transport():
    named = contestants()
    pairs = dict.fromkeys(_pairs([named["ours ipc"], named["ours tcp"], named["pyzmq ipc"], named["pyzmq tcp"]]))
    assert list(pairs) == [("ours ipc", "pyzmq ipc"), ("ours tcp", "pyzmq tcp")]
    assert _pairs([named["ours ipc"], named["iceoryx2"]]) == [("ours ipc", "iceoryx2")]
    loops = [named["ours uvloop ipc"], named["ours asyncio ipc"], named["zmq.asyncio uvloop ipc"]]
    assert _pairs(loops) == [("ours uvloop ipc", "zmq.asyncio uvloop ipc")]


def test_pinned_cases_are_left_out_where_there_are_too_few_cpus():
    two, same = Case("latency", "x", PACED, "two-cpu"), Case("latency", "x", PACED, "same-cpu")
    assert (two.lacks([0, 1]), two.cpus([3, 5])) == ("", ([3], [5]))
    assert (same.lacks([4]), same.cpus([4])) == ("", ([4], [4]))
    assert two.lacks([4]) == "it needs two CPUs"
    assert "can't be pinned" in same.lacks([])
    assert Case("throughput", "x").lacks([]) == ""
