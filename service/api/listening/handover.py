"""The listening socket between processes: one that a parent hands over is taken, and ours goes on to a successor.

Both speak systemd's protocol (sd_listen_fds(3)): the socket is descriptor 3, and the environment says for which process.
It must not know what is served on it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import MutableMapping
from typing import Final, NoReturn

from service.errors import SettingsInvalid

FIRST_FD: Final = 3  # SD_LISTEN_FDS_START
_FDS, _PID, _NAMES = "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"


def inherited(environ: MutableMapping[str, str]) -> socket.socket | None:
    """The listening socket that was handed to this process; None if there is none.

    The variables are taken out, so that no child believes that they are meant for it.

    Raises:
        SettingsInvalid: What was handed over is no single listening TCP socket.
    """
    fds, pid, _ = (environ.pop(name, "") for name in (_FDS, _PID, _NAMES))
    if pid != str(os.getpid()) or fds in {"", "0"}:
        return None
    if fds != "1":
        raise SettingsInvalid(
            [f"LISTEN_FDS={fds}: one socket can be served; leave one ListenStream= in the socket unit"]
        )
    try:
        given = socket.socket(fileno=FIRST_FD)
    except OSError as error:
        raise SettingsInvalid([f"LISTEN_FDS=1: descriptor {FIRST_FD} is no socket: {error.strerror}"]) from error
    given.set_inheritable(False)
    tcp = given.family in {socket.AF_INET, socket.AF_INET6} and given.type == socket.SOCK_STREAM
    if not tcp or not given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        given.close()
        raise SettingsInvalid(
            [
                f"LISTEN_FDS=1: descriptor {FIRST_FD} does not listen on TCP; write ListenStream=127.0.0.1:8080, and Accept=no"
            ]
        )
    return given


def start_anew(listening: socket.socket) -> NoReturn:
    """Become a new process of the same command, with the same id, which serves on this socket.

    Until it accepts, connections wait in the kernel.

    Raises:
        OSError: The interpreter cannot be started any more.
    """
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # it would end the successor before that catches it
    os.dup2(listening.fileno(), FIRST_FD)
    os.set_inheritable(FIRST_FD, True)
    os.environ |= {_FDS: "1", _PID: str(os.getpid())}
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - the command that runs already
