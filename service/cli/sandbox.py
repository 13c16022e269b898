"""`remora sandbox`: the providers in a box as a command.

Owns its options, what it prints and that it ends cleanly on a signal. It must not know how the sandbox works.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Mapping
from ipaddress import IPv4Network, ip_address, ip_network
from typing import Annotated, Final
from urllib.parse import urlsplit

import typer

from service.cli.printing import folded, terminal_width
from service.sandbox.faults import Fault, describe, parse_faults
from service.sandbox.keys import HELP
from service.sandbox.server import SandboxOptions, SandboxServer
from service.settings import provider_variable

SERVICE_URL: Final = "http://127.0.0.1:8080"  # where `remora serve` listens unless it is told otherwise
FAULTS_HELP = "What befalls every task, such as lost-callback,double-callback=0.5; the words are below."
#: To be shown below the options. A blank line keeps lines apart where help is set in paragraphs.
EPILOG = (
    "Faults, for the whole server by --faults, or for one task by its prompt, as in 'a cat \\[fault:late-callback:3]', "
    "or while it runs by POST /_sandbox/faults. Written as word, word:argument, and either with =0.5 (probability) or "
    "=2 (so many tasks):\n\n"
    + "\n\n".join(describe().splitlines())
    + f"\n\nKeys: {HELP}. GET /_sandbox/tasks and /_sandbox/log tell what it knows and what it has seen."
)


app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command(epilog=EPILOG)
def sandbox(
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65534, help="The port to listen on, and the next one for sharkai; 0 takes two free ones."
        ),
    ] = 9090,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    speed: Annotated[
        float,
        typer.Option(
            min=0.001, max=100_000, help="Documented durations are divided by it: at 10 a task takes 1 to 3 s."
        ),
    ] = 10.0,
    faults: Annotated[str, typer.Option(help=FAULTS_HELP)] = "",
    seed: Annotated[int, typer.Option(help="Decides durations and the dice of the faults.")] = 0,
) -> None:
    """Run the providers in a box: it speaks the dialect of every built-in card, draws pictures and misbehaves on request."""
    options = SandboxOptions(host=host, port=port, speed=speed, faults=_read_faults(faults), seed=seed)
    try:
        asyncio.run(_run(options))
    except OSError as error:
        typer.echo(
            f"cannot listen on {error.filename or f'{host} port {port}'}: {error.strerror or error}; "
            "choose another --host or --port",
            err=True,
        )
        raise typer.Exit(1) from error


def _read_faults(text: str) -> tuple[Fault, ...]:
    try:
        return parse_faults(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--faults") from error


async def _run(options: SandboxOptions) -> None:
    told_to_stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told_to_stop.set)
    server = SandboxServer(options)
    await server.start()
    try:
        _introduce(server.base_urls)
        await told_to_stop.wait()
    finally:
        await server.stop()


def _introduce(base_urls: Mapping[str, str]) -> None:
    says = (
        f"The sandbox listens on {' and '.join(dict.fromkeys(base_urls.values()))} (Ctrl-C ends it). "
        "Give the service these to use it, as variables or in its .env:"
    )
    for line in [*folded("", says, terminal_width()), ""]:
        typer.echo(line)
    for card, base_url in base_urls.items():
        for name, value in (("BASE_URL", base_url), ("API_KEY", "sandbox")):
            typer.echo(f"{provider_variable(card, name)}={value}")
    typer.echo(
        "\n# Requests go to public addresses only, unless they are told otherwise;\n# and the sandbox calls back here.\n"
        f"REMORA_EGRESS_ALLOW={_networks_of(base_urls)}\n"
        f"REMORA_PUBLIC_URL={SERVICE_URL}\n"
    )


def _networks_of(base_urls: Mapping[str, str]) -> str:
    """What the service has to allow itself to reach the sandbox: all of loopback, else the addresses alone."""
    host = urlsplit(next(iter(base_urls.values()))).hostname
    found = [ip_address(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    loopback = IPv4Network("127.0.0.0/8")
    return ",".join(sorted({str(loopback if each in loopback else ip_network(each)) for each in found}))
