"""`eventflows list`: every event flow there is, in one table."""

from __future__ import annotations

import os
from typing import Any

import click

from eventflows.catalog_file import CatalogFile
from eventflows.cli.find import flows_in
from eventflows.cli.flows import API, row_of
from eventflows.cli.tables import show
from eventflows.errors import ConfigError

_COLUMNS = ("where", "account", "name", "algorithm", "version", "source", "destination", "enabled")
Row = dict[str, Any]


@click.command("list", short_help="Show every event flow in one table.")
@click.argument("modules", nargs=-1, metavar="[MODULE...]")
@click.option("--account", help="An account's name, which needs ALGORITHMIA_ADMIN_API_KEY.")
@click.option("--user-id", help="An account's id, which needs only its own key.")
@click.option("--cluster", is_flag=True, help="Every account of the cluster; needs ALGORITHMIA_ADMIN_API_KEY.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_all(modules: tuple[str, ...], account: str | None, user_id: str | None, cluster: bool, as_json: bool) -> None:
    """Show the flows of the catalogue, the decorated flows of MODULEs, and those that the platform itself runs.

    The platform is asked with --account, --user-id or --cluster, at ALGORITHMIA_API with ALGORITHMIA_API_KEY and
    ALGORITHMIA_ADMIN_API_KEY. Secrets are not shown. Accounts that could not be read are named on standard error.

    \b
    Examples:
      eventflows list scorer tally.py
      eventflows list --account jane
      eventflows list --cluster --json
    """
    if sum((account is not None, user_id is not None, cluster)) > 1:
        raise ConfigError("list: give one of --account, --user-id and --cluster.")
    rows = [_catalogued(row_of(one)) for one in CatalogFile().read().flows.values()]
    rows += [row for module in modules for row in _decorated(module)]
    if account is not None or user_id is not None or cluster:
        rows += _hosted(account, user_id)
    empty = "no event flows" if modules or account or user_id or cluster else (
        "the catalogue has no flows. Give modules to look into, or --account, --user-id or --cluster"
        + ("." if os.environ.get(API) else f" and set {API}.")
    )  # fmt: skip
    show(rows, _COLUMNS, as_json=as_json, empty=empty)


def _catalogued(row: Row) -> Row:
    return {"where": "catalogue", **row}


def _decorated(module: str) -> list[Row]:
    rows = []
    for name, flow in flows_in(module):
        ends = [end for end in (flow._source, flow._destination) if end is not None]
        algorithm = next((end.algorithm for end in ends if end.algorithm is not None), None)
        rows.append(
            {
                "where": "code",
                "name": flow.name if flow._source is not None else f"{module}:{name}",
                "algorithm": algorithm or f"{module}:{name}",
                "version": next((end.version for end in ends if end.version is not None), None),
                "source": flow.source,
                "destination": flow.destination,
                "dead_letter": None if flow._source is None else flow._source.dead_letter,
            }
        )
    return rows


def _hosted(account: str | None, user_id: str | None) -> list[Row]:
    from eventflows.listeners import ClusterListing, EventListeners

    client = EventListeners.from_env()
    try:
        if account is None and user_id is None:
            found = client.all_listeners()
        else:
            found = client.listeners(account, user_id=user_id)  # type: ignore[assignment]
    finally:
        client.close()
    if isinstance(found, ClusterListing):
        for name, why in found.refused.items():
            click.echo(f"eventflows: account {name} is not shown: {why}", err=True)
    return [
        {
            "where": "platform",
            "account": one.account or user_id,
            "name": None if one.id is None else str(one.id),
            "algorithm": "/".join(part for part in (one.algo_owner, one.algo_name) if part),
            "version": one.algo_version,
            "source": one.source_uri,
            "source_type": one.source_type,
            "timeout": one.algo_timeout_seconds,
            "credentials": None if one.credentials is None else str(one.credentials),
            "enabled": True,
        }
        for one in found
    ]
