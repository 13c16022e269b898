"""The entry point: `remora`, and `python -m service`."""

from __future__ import annotations

import sys
from io import TextIOWrapper

from service.cli.main import app


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a ✓ must not end a command on a terminal that has none
    app(prog_name="remora")


if __name__ == "__main__":
    main()
