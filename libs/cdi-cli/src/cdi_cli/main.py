"""The ``cdi`` command."""

from __future__ import annotations

from typing import Final

import typer

from cdi_cli.commands.applying import apply
from cdi_cli.commands.audiences import audience
from cdi_cli.commands.auditing import audit
from cdi_cli.commands.clean_rooms import clean_room
from cdi_cli.commands.dead import dead_letters
from cdi_cli.commands.demo import demo
from cdi_cli.commands.doctor import doctor
from cdi_cli.commands.explaining import explain
from cdi_cli.commands.privacy import privacy
from cdi_cli.commands.profiles import profile
from cdi_cli.commands.querying import query
from cdi_cli.commands.sending import send
from cdi_cli.commands.suite import up
from cdi_cli.commands.tailing import tail
from cdi_cli.commands.tracing import trace
from cdi_cli.commands.warehouses import warehouse
from cdi_runtime.telemetry.logs import configure_logs

app: Final = typer.Typer(no_args_is_help=True, pretty_exceptions_show_locals=False)


@app.callback()
def begin() -> None:
    """CDI: an open customer data infrastructure."""
    configure_logs("ERROR", "cdi", "command")


for command in (up, demo, apply, send, tail, explain, trace, audit, query, profile, dead_letters, doctor):
    app.command()(command)
app.add_typer(audience, name="audience")
app.add_typer(clean_room, name="clean-room")
app.add_typer(privacy, name="privacy")
app.add_typer(warehouse, name="warehouse")
