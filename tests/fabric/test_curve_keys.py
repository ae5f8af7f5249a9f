"""CURVE keys before any socket: key pairs on disk, key texts, and what a config may say of them."""

from __future__ import annotations

import errno
import itertools
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import zmq

from fabric.cli.main import run_cli
from fabric.client.endpoints import find_endpoints
from fabric.config.curve import look_up_curves, node_curves, replay_curves, server_curve
from fabric.config.load import load_topology
from fabric.config.saved import SAVED, load_saved, save_source
from fabric.errors import ConfigError, UserMistake
from fabric.secret import Secret
from fabric.transport.security import (
    CurveClient,
    CurveServer,
    public_key_of,
    require_curve,
    secret_key_of,
    write_key_pair,
)


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    """Key pairs in ``keys/``: name to public key; ``NAME!`` to secret key."""
    found = {}
    for name in ("feed", "desk", "other"):
        (tmp_path / "keys").mkdir(exist_ok=True)
        _, secret, found[name] = write_key_pair(tmp_path / "keys" / name)
        found[f"{name}!"] = secret_key_of(secret.read_text()).reveal()
    return found


def fabric_toml(tmp_path: Path, curve: str = "", channel: str = "", listen: str = "tcp://127.0.0.1:7001") -> Path:
    path = tmp_path / "feed.toml"
    path.write_text(
        f'data_dir = "var"\n{curve}\n[nodes.feed]\nuse = "feed.simulated"\noutputs = {{ instrument = "i", quote = "q" }}\n'
        f'[channels.q]\nlisten = "{listen}"\nreplay = "tcp://127.0.0.1:7002"\n{channel}\n'
    )
    return path


def reader_toml(tmp_path: Path, curve: str) -> Path:
    path = tmp_path / "desk.toml"
    ends = 'connect = "tcp://127.0.0.1:7001"\nreplay = "tcp://127.0.0.1:7002"\n'
    path.write_text(
        f'data_dir = "var"\n{curve}\n[channels.i]\n{ends}[channels.q]\n{ends}'
        '[nodes.pricing]\nuse = "pricing"\ninputs = { instrument = "i", quote = "q" }\noutputs = { greeks = "g" }\n'
    )
    return path


SERVER = '[curve]\nsecret_key = { file = "keys/feed.key_secret" }\n'
CLIENT = '[curve]\nsecret_key = { file = "keys/desk.key_secret" }\nserver_key = { file = "keys/feed.key" }\n'


def test_keygen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["keygen", str(tmp_path / "deep" / "desk")]) == 0
    public, secret = tmp_path / "deep" / "desk.key", tmp_path / "deep" / "desk.key_secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert "secret-key" not in public.read_text()
    key = public_key_of(public.read_text())
    hidden = secret_key_of(secret.read_text())
    assert zmq.curve_public(hidden.reveal().encode()).decode() == key
    out = capsys.readouterr().out
    assert key in out
    assert hidden.reveal() not in out
    before = secret.read_text()
    assert run_cli(["keygen", str(tmp_path / "deep" / "desk.key")]) == 2
    assert "--force" in capsys.readouterr().err
    assert secret.read_text() == before
    assert run_cli(["keygen", str(tmp_path / "deep" / "desk"), "--force"]) == 0
    assert secret.read_text() != before
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert run_cli(["keygen", str(tmp_path)]) == 0
    assert (tmp_path / "curve.key").exists()
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]
    (tmp_path / "file").write_text("")
    assert run_cli(["keygen", str(tmp_path / "file" / "x")]) == 2


def fail_at(monkeypatch: pytest.MonkeyPatch, what: str, number: int) -> None:
    """The ``number``-th call (from 1) of an operation on files fails, as on a full disk."""
    owner: Any = os if what == "fsync" else Path
    original, calls = getattr(owner, what), itertools.count(1)

    def failing(*arguments: Any, **options: Any) -> Any:
        if next(calls) == number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*arguments, **options)

    monkeypatch.setattr(owner, what, failing)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("force", [False, True])
def test_keygen_on_a_full_disk_leaves_what_was_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int, force: bool
) -> None:
    if force:
        write_key_pair(tmp_path / "desk")
    before = {file.name: file.read_text() for file in tmp_path.iterdir()}
    fail_at(monkeypatch, "fsync", number)
    assert run_cli(["keygen", str(tmp_path / "desk"), *(["--force"] if force else [])]) == 2
    assert "can't write: No space left on device" in capsys.readouterr().err
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("number", [1, 2])
def test_a_crash_between_the_files_of_a_pair_never_leaves_a_mismatch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    _, secret, old = write_key_pair(tmp_path / "desk")
    fail_at(monkeypatch, "replace", number)
    with pytest.raises(OSError, match="No space"):
        write_key_pair(tmp_path / "desk", force=True)
    assert [file.name for file in tmp_path.iterdir()] == ["desk.key_secret"]
    key = public_key_of(secret.read_text())
    assert zmq.curve_public(secret_key_of(secret.read_text()).reveal().encode()).decode() == key
    assert (key == old) == (number == 1)


def test_files_are_what_other_zeromq_programs_read_and_write(tmp_path: Path, keys: dict[str, str]) -> None:
    from zmq.auth.certs import create_certificates, load_certificate

    assert load_certificate(tmp_path / "keys" / "feed.key_secret") == (keys["feed"].encode(), keys["feed!"].encode())
    public, secret = (Path(file) for file in create_certificates(tmp_path, "theirs"))
    pair = load_certificate(secret)
    assert public_key_of(public.read_text()).encode() == pair[0]
    assert secret_key_of(secret.read_text()).reveal().encode() == pair[1]


def test_what_is_no_key(keys: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = Secret(keys["feed!"])
    for text in ("", "x" * 39, " " * 40, "x" * 39 + "~"):
        with pytest.raises(ValueError, match="is no public key"):
            public_key_of(text)
        with pytest.raises(ValueError, match="is no secret key"):
            secret_key_of(text)
    with pytest.raises(ValueError, match="is the public half"):
        secret_key_of((tmp_path / "keys" / "feed.key").read_text())
    with pytest.raises(ValueError, match="does not belong to the secret key"):
        CurveServer(secret, "any", keys["desk"])
    with pytest.raises(ValueError, match="is no public key"):
        CurveServer(secret, frozenset(["x"]))
    with pytest.raises(ValueError, match="clients are"):
        CurveServer(secret, "all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="is no public key"):
        CurveClient("x", secret)
    assert CurveClient(keys["desk"], secret).public_key == keys["feed"]
    assert keys["feed!"] not in repr(CurveServer(secret, "any")) + repr(CurveClient(keys["desk"], secret))
    monkeypatch.setattr(zmq, "has", lambda capability: False)
    with pytest.raises(UserMistake, match="has no CURVE"):
        require_curve()


@pytest.mark.parametrize(
    ("curve", "channel", "said"),
    [
        (SERVER, "", "curve.clients: is missing (list public keys"),
        ('[curve]\nclients = "any"\n', "", "curve.secret_key: is missing"),
        (SERVER + 'clients = "nowhere"\n', "", "there is no directory"),
        (SERVER + 'clients = ["short"]\n', "", "curve.clients: is no public key"),
        (SERVER + "clients = 5\n", "", "curve.clients: expected str | array, got int"),
        (SERVER + 'clinets = "any"\n', "", "curve.clinets: is not a known key (did you mean 'clients'?)"),
        ('[curve]\nsecret_key = { file = "keys/feed.key" }\nclients = "any"\n', "", "is the public half of a key pair"),
        ('[curve]\nsecret_key = { file = "keys/none" }\nclients = "any"\n', "", "there is no file"),
        (
            SERVER + 'clients = "any"\npublic_key = { file = "keys/desk.key" }\n',
            "",
            "does not belong to the secret key",
        ),
        (SERVER + 'clients = "any"\n', "curve = 5", "channels.q.curve: is not a table"),
        (SERVER + 'clients = "any"\n', 'curve = "off"', "channels.q.curve: is not a table"),
        (SERVER + 'clients = "any"\n', "curve.clients = 'nowhere'", "channels.q.curve.clients: there is no directory"),
        (
            SERVER + 'clients = "any"\n',
            '[channels.i]\nlisten = "tcp://127.0.0.1:7001"\ncurve = "none"',
            "channels.i.curve: is not that of channel 'q', which has the same endpoint",
        ),
    ],
)
def test_mistakes_in_curve(
    tmp_path: Path,
    keys: dict[str, str],
    curve: str,
    channel: str,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_cli(["check", str(fabric_toml(tmp_path, curve, channel))]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert not any(keys[name] in err for name in keys if name.endswith("!"))


def test_a_reader_needs_the_servers_key(
    tmp_path: Path, keys: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["check", str(reader_toml(tmp_path, SERVER))]) == 2
    assert "curve.server_key: is missing (it is the public key of the fabric" in capsys.readouterr().err
    path = reader_toml(tmp_path, CLIENT)
    assert run_cli(["check", str(path)]) == 0
    curve = find_endpoints("q", path, None, None).curve
    assert curve == CurveClient(keys["feed"], Secret(keys["desk!"]), keys["desk"])
    assert find_endpoints("g", path, None, None).curve is None, "over ipc"


def test_what_a_config_gives_to_sockets(tmp_path: Path, keys: dict[str, str]) -> None:
    feed = Secret(keys["feed!"])
    topology = load_topology(
        fabric_toml(tmp_path, SERVER + f'clients = ["{keys["desk"]}", {{ file = "keys/other.key" }}]\n')
    )
    both = CurveServer(feed, frozenset([keys["desk"], keys["other"]]))
    assert node_curves(topology, "feed") == {"tcp://127.0.0.1:7001": both}
    assert replay_curves(topology) == {"tcp://127.0.0.1:7002": both}
    topology = load_topology(fabric_toml(tmp_path, SERVER + 'clients = "keys"\n', 'curve.clients = "any"'))
    assert node_curves(topology, "feed") == {"tcp://127.0.0.1:7001": CurveServer(feed, "any")}, "channel over fabric"
    topology = load_topology(fabric_toml(tmp_path, SERVER + 'clients = "keys"\n'))
    assert server_curve(topology, "q") == CurveServer(feed, tmp_path / "keys")
    topology = load_topology(fabric_toml(tmp_path, SERVER + 'clients = "any"\n', 'curve = "none"'))
    assert node_curves(topology, "feed") == {}
    assert server_curve(topology, "q") is None
    look_up_curves(topology)


def test_who_only_reads_the_topology_needs_no_key(tmp_path: Path) -> None:
    topology = load_topology(fabric_toml(tmp_path, SERVER + 'clients = "any"\n'))  # there are no key files
    with pytest.raises(ConfigError, match="there is no file"):
        look_up_curves(topology)


def test_the_secret_key_is_nowhere(tmp_path: Path, keys: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    path = fabric_toml(tmp_path, SERVER + 'clients = "keys"\n')
    for arguments in (
        ["check"],
        ["check", "--resolved"],
        ["check", "--resolved", "--json"],
        ["explain"],
        ["explain", "--json"],
    ):
        assert run_cli([arguments[0], str(path), *arguments[1:]]) == 0
    topology = load_topology(path)
    look_up_curves(topology)
    save_source(tmp_path, topology.source)
    out, err = capsys.readouterr()
    for text in (out, err, (tmp_path / SAVED).read_text(), repr(topology)):
        assert keys["feed!"] not in text
    assert "***" in out
    assert f"file {tmp_path / 'keys' / 'feed.key_secret'}" in out
    assert node_curves(load_saved(tmp_path), "feed") == node_curves(topology, "feed"), "looked up again"


def test_explain_and_check_tell_what_is_encrypted(tmp_path: Path, keys: dict[str, str], capsys: Any) -> None:
    path = fabric_toml(tmp_path, SERVER + 'clients = "any"\n', listen="tcp://*:7001")
    assert run_cli(["explain", str(path)]) == 0
    out, err = capsys.readouterr()
    assert "listens  at tcp://*:7001, CURVE, for any client" in out
    assert "and at tcp://127.0.0.1:7002, CURVE" in out
    assert err == ""
    path = fabric_toml(tmp_path, listen="tcp://*:7001")
    for verb in ("explain", "check"):
        assert run_cli([verb, str(path)]) == 0
        out, err = capsys.readouterr()
        assert "warning: channel 'q' listens on tcp://*:7001 without `curve`" in err
        assert "7002" not in err, "only this host reaches it"
    assert run_cli(["explain", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [channel["curve"] for channel in facts["channels"]] == [False, False]
    assert len(facts["warnings"]) == 1
    run_cli(["explain", str(path)])
    assert "listens  at tcp://*:7001, not encrypted" in capsys.readouterr().out
