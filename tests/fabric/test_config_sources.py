"""Where config values come from: files that extend others, the environment, files, ``--set``; and secrets."""

from __future__ import annotations

import copy
import json
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest

import fabric
from fabric.cli.main import run_cli
from fabric.config.load import load_topology
from fabric.config.plan import make_plan
from fabric.config.saved import SAVED, load_saved, save_source
from fabric.config.source import read_source
from fabric.errors import ConfigError

SECRET = "hunter2-hunter2"


@pytest.fixture
def files(tmp_path: Path) -> Any:
    """Writes ``name=text`` files; a node that takes every kind of value stands beside them."""
    (tmp_path / "everykind.py").write_text(
        "from pathlib import Path\nfrom typing import Literal\nimport fabric\n"
        "NUMBER = fabric.record('number', value='u8')\n"
        "class EveryKind(fabric.Source):\n"
        "    out = fabric.Output(NUMBER)\n"
        "    api_key: fabric.Secret | None = None\n"
        "    more_keys: dict[str, fabric.Secret] = {}\n"
        "    every: fabric.Duration = fabric.Duration('1s')\n"
        "    buffer: fabric.Bytes = fabric.Bytes('1MiB')\n"
        "    count: int = 1\n    share: float = 0.5\n    on: bool = False\n    name_: str = 'x'\n"
        "    names: list[str] = []\n    numbers: list[int] = []\n    where: Path | None = None\n"
        "    mode: Literal['a', 'b'] = 'a'\n"
        "    limits: dict[str, dict[str, float]] = {}\n"
        "    pauses: list[fabric.Duration] = []\n"
        "    def next_due_ns(self, now_ns):\n        return None\n"
        "    def report(self):\n        return {'key': self.api_key, 'count': self.count}\n"
    )

    def write(**texts: str) -> Path:
        for name, text in texts.items():
            (tmp_path / f"{name}.toml").parent.mkdir(exist_ok=True, parents=True)
            (tmp_path / f"{name}.toml").write_text(text)
        return tmp_path / f"{next(iter(texts))}.toml"

    return write


def node(text: str = "") -> str:
    return f'[nodes.n]\nuse = "everykind:EveryKind"\noutputs = {{ out = "n.out" }}\n{text}\n'


def config_of(path: Path, *settings: str) -> dict[str, Any]:
    return make_plan(load_topology(path, settings)).nodes["n"].config


def refused(path: Path, *settings: str) -> str:
    with pytest.raises(ConfigError) as caught:
        make_plan(load_topology(path, settings))
    return str(caught.value)


# extends


def test_precedence_and_merging(files: Any) -> None:
    path = files(
        main='extends = ["first.toml", "second.toml"]\n' + node("share = 0.9\nlimits.BTC = { vega = 3.0 }"),
        first='heartbeat = "20ms"\n' + node('count = 1\nnames = ["a", "b"]\nlimits.BTC = { delta = 1.0 }\nshare = 0.1'),
        second='extends = "third.toml"\n[nodes.n]\ncount = 2\nnames = ["c"]\n',
        third='[nodes.n]\ncount = 3\nbuffer = "2MiB"\n',
    )
    config = config_of(path, "nodes.n.on=true")
    assert config["count"] == 2, "from left to right, each after what it extends itself"
    assert config["buffer"] == 2 << 20
    assert config["names"] == ["c"], "lists replace"
    assert config["limits"] == {"BTC": {"delta": 1.0, "vega": 3.0}}, "tables merge"
    assert (config["share"], config["on"]) == (0.9, True)
    assert config_of(path, "nodes.n.limits={}")["limits"] == {}, "--set replaces a table whole"
    assert load_topology(path).heartbeat_ns == 20_000_000
    assert load_topology(path).fabric == "main"


def test_a_path_belongs_to_the_file_that_it_is_written_in(files: Any, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    path = files(
        main='extends = "lib/base.toml"\n' + node(), **{"lib/base": 'data_dir = "d"\n[nodes.n]\nwhere = "p"\n'}
    )
    assert config_of(path)["where"] == tmp_path / "lib" / "p"
    assert load_topology(path).data_dir == tmp_path / "lib" / "d"
    assert config_of(path, "nodes.n.where=q")["where"] == tmp_path / "elsewhere" / "q"


def test_what_extends_can_not_be(files: Any) -> None:
    path = files(a='extends = "b.toml"\n', b='\nextends = ["c.toml"]\n', c='extends = ["a.toml"]\n')
    assert "in a cycle: a.toml -> b.toml -> c.toml -> a.toml" in refused(path)
    assert "in a cycle: s.toml -> s.toml" in refused(files(s='extends = "s.toml"\n'))
    said = refused(files(m='fabric = "m"\nextends = "nowhere.toml"\n'))
    assert "m.toml:2: extends: there is no file" in said
    assert "is not a file's path or a list of them" in refused(files(n="extends = 5\n"))
    assert "can't be set here" in refused(files(o=node()), "extends=x.toml")
    twice = files(p='extends = ["q.toml", "q.toml"]\n' + node(), q="")
    assert config_of(twice) == {}, "the same file twice is no cycle"


def test_errors_name_file_and_line(files: Any) -> None:
    path = files(main='extends = "base.toml"\n', base="\n\n" + node("\ncount = true"))
    assert "base.toml:7: nodes.n.count: expected int, got bool" in refused(path)
    assert "main.toml:4: heartbeat: is 5, not a string with a unit" in refused(
        files(main="\n\n\nheartbeat = 5\n" + node())
    )
    text = "name_ = '''\ncount = 5\n'''\nshare = \"x\""
    assert "main.toml:7: nodes.n.share" in refused(files(main=node(text)))


# References


def test_values_from_the_environment_and_files_have_the_type_of_the_key(
    files: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {
        "COUNT": "5", "SHARE": "2", "ON": "true", "NAME": "5", "EVERY": "20ms", "BUFFER": "64KiB", "NAMES": '["a", "b"]',
        "MODE": "b", "ONE": "1", "WHERE": "p", "KEY": SECRET, "HEART": "50ms", "OUT": "n.two",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"FT_{name}", value)
    (tmp_path / "long.txt").write_text("  from a file\n")
    (tmp_path / "key").write_text(f"{SECRET}\n")
    path = files(
        main='heartbeat = { env = "FT_HEART" }\n[nodes.n]\nuse = "everykind:EveryKind"\noutputs.out = { env = "FT_OUT" }\n'
        'count = { env = "FT_COUNT" }\nshare = { env = "FT_SHARE" }\non = { env = "FT_ON" }\nname_ = { env = "FT_NAME" }\n'
        'every = { env = "FT_EVERY" }\nbuffer = { env = "FT_BUFFER" }\nnames = { env = "FT_NAMES" }\nmode = { env = "FT_MODE" }\n'
        'numbers = [{ env = "FT_ONE" }, 2]\nwhere = { env = "FT_WHERE" }\napi_key = { env = "FT_KEY" }\n'
        'more_keys = { a = { file = "key" } }\nlimits.BTC.delta = { env = "FT_COUNT" }\n'
        'pauses = ["1ms", { env = "FT_EVERY" }]\n'
    )
    topology = load_topology(path)
    config = make_plan(topology).nodes["n"].config
    assert topology.heartbeat_ns == 50_000_000
    assert topology.nodes["n"].outputs == {"out": "n.two"}
    assert config == {
        "count": 5, "share": 2.0, "on": True, "name_": "5", "every": 20_000_000, "buffer": 64 << 10, "names": ["a", "b"],
        "mode": "b", "numbers": [1, 2], "where": tmp_path / "p", "api_key": fabric.Secret(SECRET),
        "more_keys": {"a": fabric.Secret(SECRET)}, "limits": {"BTC": {"delta": 5.0}}, "pauses": [1_000_000, 20_000_000],
    }  # fmt: skip
    assert config_of(path, "nodes.n.name_.file=" + str(tmp_path / "long.txt"))["name_"] == "from a file"
    assert config_of(files(main=node('count = { env = "FT_NONE", default = 9 }')))["count"] == 9


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            'count = { env = "FT_NONE" }',
            "main.toml:4: nodes.n.count: the environment variable FT_NONE is not set (set FT_NONE",
        ),
        ('count = { file = "none" }', "nodes.n.count: there is no file"),
        ('count = { file = "." }', "can't be read: Is a directory"),
        ('count = { env = "FT_WORD" }', "env FT_WORD holds 'many', not a whole number"),
        ('on = { env = "FT_WORD" }', "env FT_WORD holds 'many', not true or false"),
        ('share = { env = "FT_WORD" }', "env FT_WORD holds 'many', not a number"),
        ('count = { env = "FT_HALF" }', "nodes.n.count: expected int, got float"),
        ('every = { env = "FT_WORD" }', "nodes.n.every: 'many' is not a duration"),
        ("every = 5", "nodes.n.every: is 5, not a string with a unit"),
        ('buffer = "5 parsecs"', "nodes.n.buffer: '5 parsecs' is not a size"),
        ('pauses = ["1 parsec"]', "'1 parsec' is not a duration"),
        ("pauses = [5]", "is 5, not a string"),
        ('mode = { env = "FT_WORD" }', "is 'many', not one of 'a', 'b'"),
        ('count = { env = "FT_HALF", defualt = 5 }', "nodes.n.count: expected int, got object"),
    ],
)
def test_a_reference_that_leads_nowhere(files: Any, monkeypatch: pytest.MonkeyPatch, text: str, said: str) -> None:
    monkeypatch.setenv("FT_WORD", "many")
    monkeypatch.setenv("FT_HALF", "0.5")
    assert said in refused(files(main=node(text)))


def test_a_run_keeps_what_references_led_to_but_no_secret(
    files: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FT_COUNT", "5")
    monkeypatch.setenv("FT_KEY", SECRET)
    topology = load_topology(files(main=node('count = { env = "FT_COUNT" }\napi_key = { env = "FT_KEY" }')))
    make_plan(topology)
    save_source(tmp_path, topology.source)
    assert SECRET not in (tmp_path / SAVED).read_text()
    monkeypatch.setenv("FT_COUNT", "6")
    monkeypatch.setenv("FT_KEY", "another")
    config = make_plan(load_saved(tmp_path)).nodes["n"].config
    assert config == {"count": 5, "api_key": fabric.Secret("another")}


def test_only_the_process_of_a_node_looks_its_secrets_up(files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FT_KEY", raising=False)
    text = node('api_key = { env = "FT_KEY" }') + node().replace("nodes.n", "nodes.m").replace("n.out", "m.out")
    topology = load_topology(files(main=text))
    assert make_plan(topology, only=["m"]).nodes["m"].config == {}
    with pytest.raises(ConfigError, match="FT_KEY is not set"):
        make_plan(topology)


# Secrets


@pytest.mark.parametrize(
    "text",
    [
        f'api_key = "{SECRET}"',
        f'api_key = {{ env = "FT_NONE", default = "{SECRET}" }}',
        f'api_key = ["{SECRET}"]',
        f'api_key = {{ env = "FT_NONE", defualt = "{SECRET}" }}',
        f'more_keys = {{ a = "{SECRET}" }}',
        f'[curve]\nsecret_key = "{SECRET}"',
    ],
)
def test_a_secret_is_not_written_out(files: Any, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = files(main=node(text))
    assert "is a secret" in refused(path)
    for verb in (["check"], ["check", "--resolved"], ["explain"], ["up", "--for", "1s"]):
        assert run_cli([verb[0], str(path), *verb[1:]]) == 2
    assert run_cli(["check", str(files(main=node())), "--set", f"nodes.n.api_key={SECRET}"]) == 2
    out, err = capsys.readouterr()
    assert SECRET not in out + err


def test_a_secret_is_masked_wherever_it_is_shown(
    files: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FT_KEY", SECRET)
    path = files(main=node('api_key = { env = "FT_KEY" }\nmore_keys.a = { env = "FT_KEY" }'))
    for arguments in (
        ["check"],
        ["check", "--resolved"],
        ["check", "--resolved", "--json"],
        ["explain"],
        ["check", "--schema"],
    ):
        assert run_cli([arguments[0], str(path), *arguments[1:]]) == 0
    out, err = capsys.readouterr()
    plan = make_plan(load_topology(path))
    made = plan.nodes["n"].make()
    with caplog.at_level(logging.DEBUG):
        made.log.info("started with %s %r", made.api_key, plan.nodes["n"].config)  # type: ignore[attr-defined]
    for text in (out, err, repr(plan), str(vars(made)), caplog.text, f"{made.api_key:>5}"):  # type: ignore[attr-defined]
        assert SECRET not in text
    assert "***" in caplog.text
    assert "nodes.n.api_key" in out
    assert "env FT_KEY" in out


def test_what_a_secret_can_not_do() -> None:
    secret = fabric.Secret(SECRET)
    assert secret.reveal() == SECRET
    assert (str(secret), repr(secret), f"{secret}", f"{[secret]}") == ("***", "***", "***", "[***]")
    assert secret == fabric.Secret(SECRET)
    assert secret != SECRET
    assert copy.deepcopy({"a": secret})["a"] is secret
    for spill in (json.dumps, pickle.dumps):
        with pytest.raises(TypeError):
            spill(secret)


# --resolved


def test_resolved_tells_every_value_and_where_it_is_from(
    files: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("FT_COUNT", "5")
    (tmp_path / "name").write_text("Ann")
    path = files(
        main='extends = "base.toml"\n' + node('count = { env = "FT_COUNT" }\nname_ = { file = "name" }'),
        base='heartbeat = "20ms"\n',
    )
    assert run_cli(["check", str(path), "--resolved", "--json", "--set", "nodes.n.buffer=2MiB"]) == 0
    facts = json.loads(capsys.readouterr().out)
    values = {each["key"]: (each["value"], each["origin"]) for each in facts["values"]}
    assert values["heartbeat"] == ("20ms", f"{tmp_path / 'base.toml'}:1")
    assert values["stale_after"] == ("1s", "default")
    assert values["nodes.n.count"] == (5, f"env FT_COUNT ({path}:5)")
    assert values["nodes.n.name_"] == ("Ann", f"file {tmp_path / 'name'} ({path}:6)")
    assert values["nodes.n.buffer"] == ("2MiB", "--set")
    assert values["nodes.n.every"] == ("1s", "default")
    assert values["nodes.n.outputs.out"] == ("n.out", f"{path}:4")
    assert values['channels."n.out".retain'] == ("128MiB", "default")
    assert run_cli(["check", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(path), "nodes": 1, "channels": 1, "warnings": []}


def test_durations_and_sizes_show_their_unit() -> None:
    for text in ("0s", "1ns", "1500ms", "90m", "1d", "100ms"):
        assert str(fabric.Duration(text)) == text
    for text in ("0B", "1KiB", "1536B", "64MiB", "3GiB"):
        assert str(fabric.Bytes(text)) == text
    assert (fabric.Duration("1.5s"), fabric.Bytes("2kB")) == (1_500_000_000, 2000)
    assert repr(fabric.Duration("1s")) == "Duration('1s')"
    with pytest.raises(ValueError, match="is not a duration"):
        fabric.Duration("1 parsec")


def test_a_source_knows_whether_a_key_is_written(files: Any) -> None:
    source = read_source(files(main=node("count = 1")))
    assert source.has("nodes", "n", "count")
    assert not source.has("nodes", "n", "share")
    assert not source.has("nodes", "n", "count", "deeper")
