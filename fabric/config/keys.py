"""Every config key that is not a node's own: its type, default and meaning, declared once.

The loader, ``fabric check --resolved``, the JSON Schema and the test of configs/README.md all read these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fabric.config.convert import convert
from fabric.config.source import Source, check_known
from fabric.runtime.node import REQUIRED
from fabric.secret import Secret
from fabric.units import Bytes, Duration


@dataclass(frozen=True, slots=True)
class Key:
    """``kind`` is a Python type; ``default`` is as written in TOML, or None, or REQUIRED. ``schema`` adds to what the JSON
    Schema says of the type. A ``structural`` key holds tables with names of the user's, and is read by the loader."""

    kind: Any
    default: Any
    meaning: str
    default_text: str = ""
    """What to say of the default where that is no value."""
    schema: Mapping[str, Any] = field(default_factory=dict)
    structural: bool = False


NAME = r"[A-Za-z][A-Za-z0-9_-]{0,63}"
PUBLIC_KEY = r"[0-9a-zA-Z.:+=^!/*?&<>()\[\]{}@%$#-]{40}"
_ENDPOINT = {"pattern": "^(tcp|ipc)://"}
_ENDPOINTS = {"anyOf": [{"type": "string", **_ENDPOINT}, {"type": "array", "items": {"type": "string", **_ENDPOINT}}]}

TOP_KEYS: dict[str, Key] = {
    "extends": Key(
        str | list[str],
        None,
        "Config files to build on, see [Files that extend others](#files-that-extend-others).",
        structural=True,
    ),
    "fabric": Key(
        str,
        None,
        "Its name: a letter, then letters, digits, `_` and `-`, at most 64 characters.",
        "the file's name without `.toml`",
        {"pattern": f"^{NAME}$"},
    ),
    "data_dir": Key(str, "../var", "Runs are written to `<data_dir>/<fabric>/<run>/`."),
    "log_dir": Key(
        str,
        "auto",
        'Where logs are kept. `"auto"`: on tmpfs (`/dev/shm`) if it has the room, else inside the run directory.',
    ),
    "heartbeat": Key(
        Duration, "100ms", "A channel that was quiet for this long sends a heartbeat. Looked at every 10 ms."
    ),
    "stale_after": Key(
        Duration, "1s", "An input without packet or heartbeat for this long is stale. At least two heartbeats."
    ),
    "replay_rate": Key(
        Bytes,
        "0B",
        "Bytes a second that the log server replays at most, to all its readers together, who have their turns: so much of the "
        'network recovery may take. At least 1MiB; `"0B"`: no limit. `fabric explain` reckons with it, or with 128MiB.',
    ),
    "curve": Key(
        dict,
        None,
        "Keys for all tcp endpoints of this config, see [Encryption](#encryption-curve).",
        structural=True,
    ),
    "nodes": Key(dict, REQUIRED, "One table for each node: `[nodes.NAME]`.", structural=True),
    "channels": Key(
        dict,
        {},
        'Overrides for single channels, and channels of other fabrics: `[channels."NAME"]`.',
        structural=True,
    ),
    "archive": Key(
        dict,
        None,
        "Channels to be kept beyond their logs' retention: [The archive](#the-archive-archive).",
        structural=True,
    ),
    "standby": Key(
        dict,
        {},
        "Nodes of this config that stand by for those of another host: `[standby.NODE]`, see "
        "[A standby on another host](#a-standby-on-another-host-standbynode).",
        structural=True,
    ),
    "services": Key(
        dict,
        {},
        'Where requests are answered, if not on this host: `[services."NAME"]`.',
        structural=True,
    ),
    "fault": Key(
        dict,
        None,
        "What `fabric fault` does to this fabric, see [Faults on purpose](#faults-on-purpose-fault). Other verbs leave it "
        "alone.",
        structural=True,
    ),
}

STANDBY_KEYS: dict[str, Key] = {
    "connect": Key(
        str, REQUIRED, "Where the node of the other host publishes: one of its channels' `listen`.", schema=_ENDPOINT
    ),
    "replay": Key(
        str,
        REQUIRED,
        "The other host's log server. After a takeover it is asked each second whether the node there has begun a newer "
        "session; then this one stops.",
        schema=_ENDPOINT,
    ),
    "sync": Key(
        str,
        None,
        "The node's `sync` there: each record is here before anybody sees it.",
        "it is followed like by any reader",
        _ENDPOINT,
    ),
    "takeover_after": Key(
        Duration,
        "0s",
        "The silence (no packet, no heartbeat, no answer of the log server) after which the other node counts as gone. At "
        'least 500ms; `"0s"`: it takes over only by `fabric takeover`.',
    ),
}

SERVICE_KEYS: dict[str, Key] = {
    "endpoint": Key(
        str,
        None,
        "Where the service listens, and its clients connect: a host and port.",
        "a socket of this host, found by the service's name",
        _ENDPOINT,
    ),
    "curve": Key(
        dict,
        None,
        'Keys for that endpoint, over those of the fabric\'s `curve`. `"none"`: no encryption here.',
        "the fabric's `curve`",
        structural=True,
    ),
}

ARCHIVE_KEYS: dict[str, Key] = {
    "channels": Key(
        list[str], None, "What is archived: channels of this config.", "all that nodes of this config write"
    ),
    "directory": Key(
        str,
        None,
        "Where it is kept: one directory for each channel, with all its sessions. On a disk, and not inside of a run.",
        "`<data_dir>/<fabric>/archive`",
    ),
    "keep": Key(Duration, "7d", 'A segment goes when its last record is older than this. `"0s"`: no limit by age.'),
    "keep_bytes": Key(
        Bytes,
        "10GiB",
        "For each channel: above it the oldest sessions go, then the oldest segments. At least two segments.",
    ),
    "segment": Key(
        Bytes,
        "8MiB",
        "The unit that is sealed with checksums, and removed; 64 KiB to 1 GiB. For sessions begun from then on.",
    ),
    "listen": Key(
        str | list[str],
        [],
        "Endpoints on which the archive answers beside its local one, for other hosts; with the fabric's `curve`.",
        "none",
        _ENDPOINTS,
    ),
}

_SHARE = {"minimum": 0, "exclusiveMaximum": 1}
FAULT_KEYS: dict[str, Key] = {
    "seed": Key(
        int, 0, "All decisions follow from it: which packets, and which node and when where that is left open."
    ),
    "drop": Key(float, 0.0, "The share of live packets, heartbeats too, that is not sent.", schema=_SHARE),
    "duplicate": Key(float, 0.0, "The share that is sent twice, the second time within `delay_for`.", schema=_SHARE),
    "reorder": Key(
        float, 0.0, "The share that 1 to 8 later packets overtake; held back for at most `delay_for`.", schema=_SHARE
    ),
    "delay": Key(float, 0.0, "The share that is held back for a time of up to `delay_for`.", schema=_SHARE),
    "corrupt": Key(
        float,
        0.0,
        "The share that is sent with one bit flipped. Channels then have a CRC, unless their `crc` is false.",
        schema=_SHARE,
    ),
    "delay_for": Key(Duration, "20ms", "How long a packet is held back at most."),
    "actions": Key(
        dict,
        {},
        "What is done to whole processes and when: `[fault.actions.NAME]`, a name of yours for each.",
        structural=True,
    ),
}

ACTION_KEYS: dict[str, Key] = {
    "do": Key(
        Literal["kill", "pause", "stall", "partition"],
        REQUIRED,
        "Kill: SIGKILL, the supervisor starts it again. Pause: SIGSTOP, SIGCONT after `for`. Stall: pause the log server. "
        "Partition: for that time no live packet of the node and no reply from its logs gets through.",
    ),
    "node": Key(
        str | list[str],
        None,
        "Whom; of a list, one each time, by the seed. Kill takes `log-server` too; stall takes none.",
        schema={"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    ),
    "at": Key(Duration, None, "When first, from the start of the sources.", "`every`"),
    "every": Key(Duration, None, "Again and again, so far apart.", "once"),
    "for": Key(Duration, None, "How long; not for kill.", '`"1s"`'),
    "jitter": Key(Duration, "0s", "Each time later by up to this much, by the seed."),
}

NODE_KEYS: dict[str, Key] = {
    "use": Key(
        str,
        REQUIRED,
        "The node's class: a name of the entry-point group `fabric.nodes`, or `package.module:Class`. The module may stand "
        "beside the config file.",
    ),
    "inputs": Key(
        dict[str, str],
        {},
        "Input port to channel name. Every input that is not optional must be there.",
        structural=True,
    ),
    "outputs": Key(
        dict[str, str],
        {},
        "Output port to channel name. This declares the channel and makes the node its one writer.",
        structural=True,
    ),
    "resume": Key(
        Literal["exact", "fresh"],
        "exact",
        "After a restart within a run. Exact: go on from the checkpoint and the cycle journal, each input range yields its "
        "outputs once. Fresh: forget all state and begin with snapshots of the inputs (inputs without an image go on "
        "about where the last life was).",
    ),
    "idle": Key(
        Literal["block", "yield", "spin"],
        "block",
        "Between cycles. Block: sleep until a packet or record, at most 20 ms. Yield: never sleep, but give the core to "
        "others. Spin: never sleep, a whole core.",
    ),
    "cpus": Key(
        int | list[int],
        None,
        "The processors that its process may run on, by number; all its threads with it. A node that spins needs one of "
        "its own.",
        "any",
        {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "array", "items": {"type": "integer", "minimum": 0}}]},
    ),
    "process": Key(
        str,
        None,
        "Nodes with the same word here run in one process, each in a thread of its own with its own logs, journal and page: "
        "less memory and fewer processes, one interpreter for all. They are started, killed and restarted together.",
        "its own",
    ),
    "standby": Key(
        bool,
        False,
        "A second process of the node, warmed up, waits for the first one to end, and then goes on in the same session. "
        "`fabric up` starts it, and another one after each takeover. It costs the memory of a node, and no processor.",
    ),
    "watchdog": Key(
        Duration,
        "5s",
        "A process that makes no progress for this long (stopped, or stuck in a call) is killed by the supervisor, and its "
        'standby, or a restart, goes on. At least 1s; `"0s"`: never. Not while it starts, nor under a debugger; resuming may '
        "take six times as long from cycle to cycle.",
    ),
    "sync": Key(
        str,
        None,
        "An endpoint at which a standby on another host joins (`sync` in its `[standby.NODE]`): then what the node publishes "
        "is seen by nobody before the standby has it.",
        "none",
        _ENDPOINT,
    ),
    "on_standby_lost": Key(
        Literal["stop", "go_on"],
        "stop",
        "With `sync`: what to do when the standby does not acknowledge. Stop: the process ends, and nobody has seen what the "
        "standby lacks; it does not begin without one either. Go on: without it, told in the output, until it has caught up "
        "again.",
    ),
    "standby_deadline": Key(Duration, "1s", "With `sync`: how long an acknowledgement is waited for. At least 300ms."),
    "checkpoint_every": Key(
        Duration,
        "1s",
        "How often the state is written; what a restart makes again is the cycles since. Not more often than each 500 ms. "
        "The cycle journal is kept back to the last checkpoint, whatever its size.",
    ),
}

CHANNEL_KEYS: dict[str, Key] = {
    "retain": Key(
        Bytes,
        "128MiB",
        "The log keeps at least the segments that fit into this; at least two segments. The one being filled comes within "
        "it, the one prepared ahead on top.",
    ),
    "rate": Key(
        float,
        None,
        "Records a second that you expect, for `fabric explain` to reckon with.",
        "as in the newest run",
        {"exclusiveMinimum": 0},
    ),
    "outage": Key(
        Duration,
        "0s",
        "How long a reader may be away and lose nothing, by your wish: `fabric explain` warns where the log does not "
        'reach back so far, or a reader could not catch up. `"0s"`: no wish.',
    ),
    "retain_age": Key(
        Duration, "0s", 'Also drop a segment once its last record is older than this. `"0s"`: no limit by age.'
    ),
    "segment": Key(
        Bytes, "8MiB", "The unit that retention removes; 64 KiB to 1 GiB. Changing it begins a new session."
    ),
    "sync": Key(
        bool,
        False,
        "Flush records and commit to the disk before anything is sent. Only sensible with a `log_dir` on a disk.",
    ),
    "crc": Key(
        bool,
        None,
        "A CRC-32C in each live packet. Replies of the log server always have one.",
        "on if `listen` has a tcp endpoint",
    ),
    "path": Key(
        Literal["auto", "local", "ipc", "tcp"],
        "auto",
        "How readers of this config get records. Auto: from the publisher's log, mapped, where that is on the same host and "
        "its publisher runs; else by socket. Local: only so. Ipc, tcp: only by that socket.",
    ),
    "listen": Key(
        str | list[str],
        [],
        "Endpoints for live packets beside the local one, for other hosts. The node's one socket listens there, for all "
        "its channels.",
        "none",
        _ENDPOINTS,
    ),
    "connect": Key(
        str | list[str],
        [],
        "The channel is published by another fabric or program, here: a host and port, not `*`. No node of this config "
        "may write it. Several, up to four, are lines: endpoints on which its publisher listens, that all bring the same; "
        "readers take what comes first.",
        "none",
        _ENDPOINTS,
    ),
    "reorder": Key(
        Duration,
        "10ms",
        "With several lines: how long a record that one of them lacks is waited for on the others, before the log server is "
        "asked for it.",
    ),
    "replay": Key(
        str,
        None,
        "With `connect` (then required): the log server that answers for it. Without: an endpoint on which this fabric's "
        "log server listens as well, for other hosts.",
        schema=_ENDPOINT,
    ),
    "archive": Key(
        str,
        None,
        "With `connect`: an endpoint of an archive that keeps the channel (its `listen`), with the channel's keys. Readers ask "
        "it for what the log server has no more, or does not answer for. An archive on the log server's own host needs no "
        "mention.",
        schema=_ENDPOINT,
    ),
    "standby_connect": Key(
        str,
        None,
        "With `connect`: where a standby on another host publishes the channel once it has taken over. Readers listen there too.",
        schema=_ENDPOINT,
    ),
    "standby_replay": Key(
        str,
        None,
        "That standby's log server. With `connect`: readers ask it for what the channel's own does not answer, and about a newer "
        "session. Without: the node that writes the channel asks it each second whether it was replaced, and then stops.",
        schema=_ENDPOINT,
    ),
    "recovery": Key(
        list[Literal["log", "archive", "snapshot"]],
        ["log", "archive", "snapshot"],
        "What readers try for records that they missed, in this order; after the last of them the records are lost, and told. "
        "`log` is the log server, and comes first; `archive` is asked only where `archive` names one. Without `snapshot`, "
        "what can't be replayed is lost rather than skipped.",
    ),
    "recovery_deadline": Key(
        Duration,
        "30s",
        "Records that nobody has answered for, for so long after the last progress, are lost. At least 1s.",
    ),
    "buffer": Key(
        int,
        262_144,
        "Records that wait for a reader that does not keep up, and as many above a hole. What comes beyond is passed over, and "
        "replayed when there is room. At least 8,192.",
        schema={"minimum": 8192},
    ),
    "config": Key(
        str,
        None,
        "The channel is another fabric's on this host: its config file says where, in place of `connect` and `replay`. "
        "Two configs must not name one another.",
    ),
    "curve": Key(
        dict,
        None,
        'Keys for the tcp endpoints of this channel, over those of the fabric\'s `curve`. `"none"`: no encryption here.',
        "the fabric's `curve`",
        structural=True,
    ),
}

CURVE_KEYS: dict[str, Key] = {
    "secret_key": Key(
        Secret,
        None,
        "Our own secret key: what `fabric keygen` wrote into `NAME.key_secret`, or the bare key. Never written out here.",
    ),
    "public_key": Key(
        str, None, "Our own public key; only checked, because it follows from `secret_key`.", "of `secret_key`"
    ),
    "clients": Key(
        str | list[str],
        None,
        "Who may connect to what this fabric listens on: a list of public keys, the path of a directory of `*.key` files "
        '(looked at again when somebody connects), or `"any"`. Required to listen.',
    ),
    "server_key": Key(
        str, None, "The public key of the fabric that publishes a channel which we read over tcp. Required to connect."
    ),
}


def read_keys(
    source: Source, table: dict[str, Any], keys: Mapping[str, Key], *path: str, more: bool = False
) -> dict[str, Any]:
    """The values of all keys that are no tables of names, converted; what is not given has its default, None for none.

    Raises ConfigError for a key that is not known (unless ``more`` may be there), is missing, or has a wrong value.
    """
    if not more:
        check_known(source, table, keys, *path)
    values: dict[str, Any] = {}
    for name, key in keys.items():
        if key.structural:
            continue
        if name in table:
            values[name] = convert(source, table[name], key.kind, *path, name)
        elif key.default is REQUIRED:
            raise source.error("is missing", *path, name)
        else:
            values[name] = default_of(key)
    return values


def default_of(key: Key) -> Any:
    """The default as ``read_keys`` gives it: durations in nanoseconds, sizes in bytes."""
    return key.kind(key.default) if key.kind in (Duration, Bytes) and key.default is not None else key.default
