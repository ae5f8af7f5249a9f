"""``fabric keygen``: a CURVE key pair."""

from __future__ import annotations

from pathlib import Path

import click

from fabric.errors import ConfigError
from fabric.transport.security import PUBLIC_SUFFIX, write_key_pair


@click.command()
@click.argument("name", type=click.Path(path_type=Path), default="curve")
@click.option("--force", is_flag=True, help="Replace a key pair that is there; the old one is lost.")
def keygen(name: Path, force: bool) -> None:
    """Make a key pair for encrypted tcp endpoints: NAME.key to give away, NAME.key_secret (mode 0600) to keep.

    NAME may be a path, such as keys/desk; for a directory it is curve in that directory.
    """
    if name.is_dir():
        name = name / "curve"
    if name.suffix == PUBLIC_SUFFIX:
        name = name.with_suffix("")
    try:
        name.parent.mkdir(parents=True, exist_ok=True)
        public_file, secret_file, public = write_key_pair(name, force=force)
    except OSError as error:
        raise ConfigError(f"can't write: {error.strerror}", file=str(name), remedy="choose another folder") from None
    click.echo(f"{public_file}  to give away")
    click.echo(f"{secret_file}  to keep (mode 0600)")
    click.echo(f'\nOur own config:\n  [curve]\n  secret_key = {{ file = "{secret_file}" }}')
    click.echo(
        '  clients = ["…"]      # to publish: the public keys that may connect, a directory of *.key files, or "any"'
    )
    click.echo('  server_key = "…"     # to read: the public key of the other fabric')
    click.echo(
        f'\nThe other side\'s config, in `clients` if we read there, as `server_key` if it reads here:\n  "{public}"'
    )
