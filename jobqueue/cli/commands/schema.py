"""The command ``schema``: the tables of a store that has some."""

from __future__ import annotations

import click

from jobqueue.cli.client import shared_storage
from jobqueue.cli.exits import Failure
from jobqueue.cli.options import storage_option
from jobqueue.cli.running import run
from jobqueue.storage.capabilities import HasSchema
from jobqueue.storage.urls import redact

__all__ = ["schema"]


@click.group()
def schema() -> None:
    """Make, print or check the tables of a store on PostgreSQL."""


@schema.command("apply")
@storage_option()
def apply(*, storage: str) -> None:
    """Make the tables and functions, or bring them up to date. Harmless when they are."""
    before, after = run(_with_schema(storage).apply_schema())
    name = redact(storage)
    if before == after:
        click.echo(f"{name} has version {after} of the schema, which is the latest", err=True)
    else:
        click.echo(f"{name} has version {after} of the schema now; it had {before or 'none'}", err=True)


@schema.command("print")
@storage_option()
def print_sql(*, storage: str) -> None:
    """Print the SQL that makes the schema. Connects to nothing."""
    click.echo(_with_schema(storage).schema_script())


@schema.command("check")
@storage_option()
def check(*, storage: str) -> None:
    """Check that the store has the schema of this release. Exit code 1 if not."""
    version = run(_with_schema(storage).check_schema())
    click.echo(f"{redact(storage)} has version {version} of the schema", err=True)


def _with_schema(storage: str) -> HasSchema:
    store = shared_storage(storage)
    if not isinstance(store, HasSchema):
        raise Failure.usage(
            f"{redact(storage)} is a kind of store without a schema: give a postgresql:// URL"
        )
    return store
