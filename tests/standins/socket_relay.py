# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A socket of this computer in a volume: so a container is the power host, and drives the engine that it runs on.

usage: python socket_relay.py NEW_SOCKET SOCKET
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Hand on until the source ends."""
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        sink.close()


def main(new: str, old: str) -> None:
    """Relay for ever."""
    Path(new).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(new)
        os.chmod(new, 0o600)  # noqa: PTH101
        listener.listen(64)
        while True:
            one, _address = listener.accept()
            other = socket.socket(socket.AF_UNIX)
            other.connect(old)
            for pair in ((one, other), (other, one)):
                threading.Thread(target=pump, args=pair, daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:3])
