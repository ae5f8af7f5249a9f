"""configs/README.md names every config key there is, and every config in configs/ is valid: the page can't go stale."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fabric.config.keys import (
    ACTION_KEYS,
    ARCHIVE_KEYS,
    CHANNEL_KEYS,
    CURVE_KEYS,
    FAULT_KEYS,
    NODE_KEYS,
    SERVICE_KEYS,
    STANDBY_KEYS,
    TOP_KEYS,
    Key,
)
from fabric.config.load import load_topology
from fabric.config.plan import make_plan
from fabric.config.source import CONFIG_VARIABLE
from fabric.runtime.node import REQUIRED, Node, config_keys
from fabric.units import Duration
from nodes.feed.deribit import DeribitFeed
from nodes.feed.simulated import SimulatedFeed
from nodes.pricing import Pricing
from nodes.risk import MEASURES, Risk
from nodes.surface import Surface

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED: dict[str, type[Node]] = {
    "feed.simulated": SimulatedFeed,
    "feed.deribit": DeribitFeed,
    "pricing": Pricing,
    "risk": Risk,
    "surface": Surface,
}


def sections() -> dict[str, str]:
    """Heading to text; a heading's first `word` in backticks if it has one (``[nodes.NAME]``, ``pricing``)."""
    parts = re.split(r"^## (.*)$", (CONFIGS / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = {}
    for heading, text in zip(parts[1::2], parts[2::2], strict=True):
        quoted = re.search(r"`([^`]+)`", heading)
        found[quoted[1] if quoted else heading] = text
    return found


def documented(text: str) -> set[str]:
    """The keys of a section's tables: what stands in backticks in the first column."""
    return set(re.findall(r"^\| `([^`]+)` \|", text, flags=re.MULTILINE))


def rows(text: str) -> dict[str, tuple[str, str]]:
    """Key to the default and the meaning that its row tells."""
    found = re.findall(r"^\| `([^`]+)` \| [^|]+ \| ([^|]+) \| (.+) \|$", text, flags=re.MULTILINE)
    return {key: (default, meaning) for key, default, meaning in found}


FABRICS = sorted(path for path in CONFIGS.glob("*.toml") if "[nodes" in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FABRICS, ids=lambda path: path.name)
def test_every_config_is_valid(path: Path) -> None:
    plan = make_plan(load_topology(path))
    assert set(plan.nodes) == set(plan.topology.nodes)
    for node in plan.nodes.values():
        assert node.section.use in SHIPPED
        node.make()


@pytest.mark.parametrize(
    ("section", "keys"),
    [
        ("The fabric", TOP_KEYS),
        ("[nodes.NAME]", NODE_KEYS),
        ('[channels."NAME"]', CHANNEL_KEYS),
        ("[archive]", ARCHIVE_KEYS),
        ("[standby.NODE]", STANDBY_KEYS),
        ('[services."NAME"]', SERVICE_KEYS),
        ("[fault]", FAULT_KEYS),
        ("[fault.actions.NAME]", ACTION_KEYS),
        ("curve", CURVE_KEYS),
    ],
    ids=["top", "node", "channel", "archive", "standby", "service", "fault", "action", "curve"],
)
def test_every_common_key_is_documented_as_it_is_declared(section: str, keys: dict[str, Key]) -> None:
    told = rows(sections()[section])
    assert list(told) == list(keys)
    for name, key in keys.items():
        default, meaning = told[name]
        assert meaning == key.meaning
        if key.default_text or key.default is None:
            assert default == (key.default_text or "none")
        else:
            assert default == ("required" if key.default is REQUIRED else f"`{json.dumps(key.default)}`")


@pytest.mark.parametrize("use", SHIPPED)
def test_every_key_of_a_shipped_node_is_documented_and_no_other(use: str) -> None:
    assert documented(sections()[use]) == set(config_keys(SHIPPED[use]))


@pytest.mark.parametrize("use", SHIPPED)
def test_every_port_of_a_shipped_node_is_documented(use: str) -> None:
    intro = sections()[use].partition("\n| key |")[0]
    for port in (*SHIPPED[use].inputs, *SHIPPED[use].outputs):
        assert f"`{port}`" in intro


@pytest.mark.parametrize("use", SHIPPED)
def test_defaults_are_those_of_the_class(use: str) -> None:
    table = dict(re.findall(r"^\| `([^`]+)` \| [^|]+ \| ([^|]+) \|", sections()[use], flags=re.MULTILINE))
    for key, (_, default) in config_keys(SHIPPED[use]).items():
        told = table[key].strip()
        if told in ("required", "none"):
            assert repr(default) == {"required": "REQUIRED", "none": "None"}[told]
            continue
        expected = {True: "true", False: "false"}[default] if isinstance(default, bool) else repr(default)
        expected = repr(str(default)) if isinstance(default, Duration) else expected
        assert told == f"`{expected}`".replace("'", '"')


def test_environment_variable_and_measures_are_documented() -> None:
    text = (CONFIGS / "README.md").read_text(encoding="utf-8")
    for word in (CONFIG_VARIABLE, *MEASURES):
        assert f"`{word}`" in text
