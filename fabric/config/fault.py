"""The ``[fault]`` table, of a config or of a script file: what ``fabric fault`` does."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from fabric.config.keys import ACTION_KEYS, FAULT_KEYS, read_keys
from fabric.config.source import Source, check_known, read_source
from fabric.config.topology import Action, FaultSection
from fabric.errors import ConfigError
from fabric.transport.faults import SHARES, FaultPlan

LOG_SERVER = "log-server"
"""The process that answers for the logs, by the name that the supervisor gives it."""
_FOR_NS = 1_000_000_000


def read_script(file: Path, nodes: Collection[str]) -> FaultSection:
    """A TOML file with a ``[fault]`` table, or with that table's keys alone. Raises ConfigError."""
    source = read_source(file)
    if "fault" in source.values:
        check_known(source, source.values, ["fault"])
        return read_fault(source, source.values["fault"], nodes, "fault")
    return read_fault(source, source.values, nodes)


def read_fault(source: Source, table: Any, nodes: Collection[str], *path: str) -> FaultSection:
    """Raises ConfigError, naming file, line and key."""
    if not isinstance(table, dict):
        raise source.error("is not a table", *path)
    values = read_keys(source, table, FAULT_KEYS, *path)
    plan = FaultPlan(
        **{name: values[name] for name in SHARES}, delay_for_ns=int(values["delay_for"]), seed=values["seed"]
    )
    try:
        plan.check("")
    except ConfigError as error:
        name = error.message.partition("=")[0]
        raise source.error(f"{table[name]} is not a share", *path, name, remedy=error.remedy) from None
    actions = table.get("actions", {})
    if not isinstance(actions, dict):
        raise source.error("is not a table", *path, "actions")
    return FaultSection(
        plan, tuple(_action(source, each, nodes, *path, "actions", name) for name, each in actions.items())
    )


def _action(source: Source, table: Any, nodes: Collection[str], *path: str) -> Action:
    if not isinstance(table, dict):
        raise source.error("is not a table", *path)
    values = read_keys(source, table, ACTION_KEYS, *path)
    do, at_ns, every_ns, for_ns = values["do"], values["at"], values["every"], values["for"]
    if do == "stall":
        if values["node"] is not None:
            raise source.error("stall is of the log server", *path, "node", remedy="leave it out, or pause a node")
        chosen: tuple[str, ...] = (LOG_SERVER,)
    elif not values["node"]:
        raise source.error("is missing", *path, "node", remedy=f"nodes: {', '.join(nodes)}")
    else:
        chosen = (values["node"],) if isinstance(values["node"], str) else tuple(values["node"])
        known = [*nodes, LOG_SERVER] if do == "kill" else list(nodes)
        for name in chosen:
            if name not in known:
                raise source.error(f"there is no node {name!r}", *path, "node", remedy=f"nodes: {', '.join(known)}")
    if do == "kill" and for_ns is not None:
        raise source.error("a kill takes no time", *path, "for", remedy="leave it out")
    if for_ns == 0:
        raise source.error("is no time at all", *path, "for", remedy='for example "1s"')
    if at_ns is None and every_ns is None:
        raise source.error("neither at nor every is given", *path, remedy='for example every = "5s"')
    if every_ns is not None and every_ns < 100_000_000:
        raise source.error("is shorter than 100ms", *path, "every")
    if for_ns is None:
        for_ns = 0 if do == "kill" else _FOR_NS
    return Action(
        name=path[-1],
        do=do,
        nodes=chosen,
        at_ns=every_ns if at_ns is None else at_ns,
        every_ns=every_ns or 0,
        for_ns=for_ns,
        jitter_ns=values["jitter"],
    )
