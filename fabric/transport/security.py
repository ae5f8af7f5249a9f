"""CURVE keys for tcp endpoints: who we are, who may connect, and which server we expect.

Both sides prove who they are: a server has a key pair and a list of the public keys that it lets in, a client has a key
pair and the public key of its server. Keys are 40 characters of Z85, bare or in ZeroMQ's certificate files.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import zmq

from fabric.errors import UserMistake
from fabric.secret import Secret
from fabric.transport.sockets import Socket

PUBLIC_SUFFIX, SECRET_SUFFIX = ".key", ".key_secret"
_KEY = re.compile(r"[0-9a-zA-Z.:+=^!/*?&<>()\[\]{}@%$#-]{40}")
_LINE = re.compile(r"""^\s*(public|secret)-key\s*=\s*["']?([^"'\s]*)["']?\s*$""", re.MULTILINE)
_BANNER = "#   ZeroMQ CURVE {} certificate, made by `fabric keygen`.\n"


@dataclass(frozen=True, slots=True)
class CurveClient:
    """The connecting side: the server's public key, and our key pair. Raises ValueError for what is no key."""

    server_key: str
    secret_key: Secret
    public_key: str = ""
    """Follows from the secret key; given, it must be the one."""

    def __post_init__(self) -> None:
        public_key_of(self.server_key)
        object.__setattr__(self, "public_key", _pair(self.secret_key, self.public_key))


@dataclass(frozen=True, slots=True)
class CurveServer:
    """The listening side: our key pair, and which clients may connect: their public keys, a directory of ``*.key`` files
    (looked at again when somebody connects), or ``"any"``. Raises ValueError for what is no key."""

    secret_key: Secret
    clients: frozenset[str] | Path | Literal["any"]
    public_key: str = ""
    """Follows from the secret key; given, it must be the one."""

    def __post_init__(self) -> None:
        if isinstance(self.clients, frozenset):
            for key in self.clients:
                public_key_of(key)
        elif not isinstance(self.clients, Path) and self.clients != "any":
            raise ValueError('clients are a frozenset of public keys, the Path of a directory, or "any"')
        object.__setattr__(self, "public_key", _pair(self.secret_key, self.public_key))


ServerKeys = CurveServer | Mapping[str, CurveServer] | None
"""For all tcp endpoints of a socket, or by endpoint; an endpoint that is not there is not encrypted."""


def server_for(curve: ServerKeys, endpoint: str) -> CurveServer | None:
    """The keys of one endpoint; ipc endpoints are in a directory that only their user can enter, and have none."""
    if not endpoint.startswith("tcp://"):
        return None
    return curve.get(endpoint) if isinstance(curve, Mapping) else curve


def public_key_of(text: str) -> str:
    """From a bare key or a certificate. Raises ValueError."""
    return _find(text, "public")


def secret_key_of(text: str) -> Secret:
    """From a bare key or a certificate. Raises ValueError, which does not repeat the text."""
    return Secret(_find(text, "secret"))


def public_keys_in(directory: Path) -> frozenset[str]:
    """Of all certificates and bare keys in ``*.key`` files. Raises OSError; a file without a key raises ValueError."""
    keys = set()
    for file in sorted(directory.glob(f"*{PUBLIC_SUFFIX}")):
        try:
            keys.add(public_key_of(file.read_text(encoding="utf-8")))
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
    return frozenset(keys)


def _find(text: str, which: Literal["public", "secret"]) -> str:
    text = text.strip()
    found = dict(_LINE.findall(text))
    key = found.get(which, "") if found else text
    if not _KEY.fullmatch(key):
        if which == "secret" and "public" in found:
            raise ValueError(f"is the public half of a key pair: the secret key is in the {SECRET_SUFFIX} file")
        raise ValueError(f"is no {which} key: 40 characters of Z85, or a certificate of `fabric keygen`")
    return key


def _pair(secret_key: Secret, public_key: str) -> str:
    require_curve()
    if not _KEY.fullmatch(secret_key.reveal()):
        raise ValueError("the secret key is no key: 40 characters of Z85")
    try:
        derived = zmq.curve_public(secret_key.reveal().encode()).decode()
    except zmq.ZMQError:
        raise ValueError("the secret key is no key: it is no Z85 text") from None
    if public_key and public_key != derived:
        raise ValueError(f"the public key {public_key} does not belong to the secret key: that has {derived}")
    return derived


def require_curve() -> None:
    """Raises UserMistake if this build of libzmq can't encrypt."""
    if not zmq.has("curve"):
        raise UserMistake(
            "this build of libzmq has no CURVE", remedy="install a pyzmq wheel, or build libzmq with libsodium"
        )


def use_client_keys(socket: Socket, curve: CurveClient | None) -> None:
    """For the connections that the socket makes from now on."""
    if curve is not None:
        socket.setsockopt(zmq.CURVE_SERVERKEY, curve.server_key.encode())
        socket.setsockopt(zmq.CURVE_PUBLICKEY, curve.public_key.encode())
        socket.setsockopt(zmq.CURVE_SECRETKEY, curve.secret_key.reveal().encode())


def use_server_keys(socket: Socket, curve: CurveServer, domain: bytes) -> None:
    """For the endpoints that the socket binds from now on. Without a ZAP handler for the domain nobody gets in."""
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, curve.secret_key.reveal().encode())
    socket.setsockopt(zmq.ZAP_DOMAIN, domain)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


def write_key_pair(name: Path, *, force: bool = False) -> tuple[Path, Path, str]:
    """Make a key pair in ``NAME.key`` and ``NAME.key_secret`` (mode 0600), in ZeroMQ's certificate format; returns both
    paths and the public key. Raises UserMistake if one is there and ``force`` is not given, OSError.

    A failure leaves nothing half-written. A crash never leaves two files that do not belong together: both new ones are
    written beside their targets first; then an old public file goes, the secret file is replaced, and the public one comes
    last. At every moment in between there is a secret file alone, which holds its public key as well. (The public file
    first would give away a key that nobody has the secret of.)
    """
    require_curve()
    files = name.with_name(name.name + PUBLIC_SUFFIX), name.with_name(name.name + SECRET_SUFFIX)
    for file in files:
        if file.exists() and not force:
            raise UserMistake(
                f"{file} exists", remedy="choose another name; --force makes a new key and loses the old one"
            )
    public, secret = (key.decode() for key in zmq.curve_keypair())
    text = f'metadata\ncurve\n    public-key = "{public}"\n'
    kept = f'{_BANNER.format("**secret**")}#   Keep it to yourself.\n\n{text}    secret-key = "{secret}"\n'
    with (
        _written_beside(files[1], kept, 0o600) as new_secret,
        _written_beside(files[0], f"{_BANNER.format('public')}\n{text}", 0o644) as new_public,
    ):
        files[0].unlink(missing_ok=True)
        new_secret.replace(files[1])
        new_public.replace(files[0])
    return (*files, public)


@contextlib.contextmanager
def _written_beside(file: Path, text: str, mode: int) -> Iterator[Path]:
    """A temporary file in the same folder, on disk, that never had another mode; gone at the end unless renamed."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(descriptor)  # or a crash of the machine could leave an empty file under the final name
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
