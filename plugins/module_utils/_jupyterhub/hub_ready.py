# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waits until the hub answers: its unit counts as started then, so that whatever comes next finds it.

Role jupyterhub installs this file, which imports nothing of the collection and works with Python 3.9.
"""

from __future__ import annotations

import http.client
import sys
import time

__all__ = ["main"]


def main(address: str, port: int, seconds: float = 240) -> int:
    """Return 0 once the hub answers, 1 if it doesn't within ``seconds``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        connection = http.client.HTTPConnection(address, port, timeout=5)
        try:
            connection.request("GET", "/hub/health")
            if connection.getresponse().status == 200:
                return 0
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.3)  # poll interval
    sys.stderr.write(f"The hub does not answer on {address}:{port} within {seconds:g} s.\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], int(sys.argv[2])))
