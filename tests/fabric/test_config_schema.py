"""The JSON Schema of configs: right ones pass, mistakes do not."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fabric.cli.main import run_cli
from fabric.config.schema import installed_nodes, make_schema

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))
FEED = '[nodes.feed]\nuse = "feed.simulated"\noutputs = { instrument = "i", quote = "q" }\n'


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = make_schema(installed_nodes())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def errors(validator: Any, text: str) -> list[str]:
    return [error.message for error in validator.iter_errors(tomllib.loads(text))]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_passes(validator: Any, path: Path) -> None:
    assert errors(validator, path.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        FEED,
        FEED + 'seed = { env = "SEED" }\nunderlyings = [{ env = "ONE" }, "ETH"]\n',
        'heartbeat = { env = "H", default = "20ms" }\n' + FEED,
        'extends = "base.toml"\n[nodes.feed]\nseed = 5\n',
        '[nodes.mine]\nuse = "mine:Mine"\nanything = 5\n',
        FEED + '[channels.q]\nlisten = ["tcp://*:1", "ipc:///tmp/x"]\ncurve = "none"\n',
        'curve = { secret_key = { file = "k" }, clients = "any" }\n' + FEED,
        'curve = { secret_key = { env = "K" }, clients = ["a", { file = "b.key" }], server_key = { file = "c" } }\n'
        + FEED,
        'heartbeat = "20ms"\n',
    ],
)
def test_what_the_loader_takes_passes(validator: Any, text: str) -> None:
    assert errors(validator, text) == []


@pytest.mark.parametrize(
    "text",
    [
        "heartbeet = '1s'\n" + FEED,
        "heartbeat = 5\n" + FEED,
        "heartbeat = '5 parsecs'\n" + FEED,
        "fabric = 'a b'\n" + FEED,
        FEED + "sed = 5\n",
        FEED + "seed = 'x'\n",
        FEED + "seed = { env = 5 }\n",
        FEED + "seed = { environment = 'X' }\n",
        FEED + "style = 'sideways'\n",
        FEED + "idle = 'sleep'\n",
        FEED + "underlyings = ['BTC', 5]\n",
        FEED.replace("instrument =", "instruments ="),
        FEED.replace("instrument = 'i', ", "").replace('instrument = "i", ', ""),
        "[nodes.feed]\nuse = 'feed.simulatd'\n",
        "[nodes.feed]\nseed = 5\n",
        "[nodes.'a b']\nuse = 'mine:Mine'\n",
        '[nodes.risk]\nuse = "risk"\ninputs = { instrument = "i", greeks = "g" }\noutputs = { risk = "r", breach = "b" }\n',
        FEED + "[channels.q]\nretain = 5\n",
        FEED + "[channels.q]\nretain = '5MB/s'\n",
        FEED + "[channels.q]\nretian = '5MB'\n",
        FEED + "[channels.q]\nlisten = 'udp://x'\n",
        FEED + "[channels.q]\nsync = 'yes'\n",
        FEED + "[channels.q]\ncurve = 'off'\n",
        FEED + "[curve]\nsecret_key = 'literal'\n",
        FEED + "[curve]\nsecret_key = { env = 'X', default = 'literal' }\n",
        "extends = 5\n" + FEED,
    ],
)
def test_mistakes_do_not_pass(validator: Any, text: str) -> None:
    assert errors(validator, text)


def test_the_schema_has_what_the_declarations_have(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "own_node.py").write_text(
        "import fabric\nNUMBER = fabric.record('number', value='u8')\n"
        "class Own(fabric.Source):\n"
        '    """Makes numbers."""\n'
        "    out = fabric.Output(NUMBER)\n"
        "    every: fabric.Duration = fabric.Duration('2s')\n"
        '    """How\n    often."""\n'
        "    key: fabric.Secret | None = None\n"
        "    keys: dict[str, fabric.Secret] = {}\n"
        "    size: fabric.Bytes\n"
    )
    path = tmp_path / "own.toml"
    path.write_text('[nodes.own]\nuse = "own_node:Own"\noutputs = { out = "o" }\nsize = "1MiB"\n')
    assert run_cli(["check", "--schema"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert "node-own_node:Own" not in plain["$defs"]
    assert plain["properties"]["heartbeat"]["default"] == "100ms"
    assert run_cli(["check", "--schema", str(path)]) == 0
    schema = json.loads(capsys.readouterr().out)
    own = schema["$defs"]["node-own_node:Own"]["properties"]
    assert own["every"]["default"] == "2s"
    assert own["every"]["description"] == "How often."
    assert own["use"]["description"] == "Makes numbers."
    validator = jsonschema.Draft202012Validator(schema)
    text = path.read_text()
    assert errors(validator, text) == []
    assert errors(validator, text.replace("size", "# size"))
    assert errors(validator, text + 'every = "5 parsecs"\n')
    assert errors(validator, text + 'key = { env = "K" }\nkeys.a = { file = "k" }\n') == []
    assert errors(validator, text + 'key = "literal"\n')
    assert errors(validator, text + 'keys.a = "literal"\n')
