# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from ansible_collections.turnkey.hpc.plugins.module_utils._jupyterhub import hub_ready


class Hub(BaseHTTPRequestHandler):
    """Is not ready at first."""

    answers = iter([503, 200])

    def do_GET(self):
        self.send_response(next(self.answers) if self.path == "/hub/health" else 404)
        self.end_headers()

    def log_message(self, *arguments):
        pass


def test_a_hub_that_answers_in_the_end_is_ready():
    server = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert hub_ready.main("127.0.0.1", server.server_port, 10) == 0
    server.shutdown()


def test_a_hub_that_never_answers_is_named(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert hub_ready.main("127.0.0.1", port, 0.5) == 1
    assert f"127.0.0.1:{port}" in capsys.readouterr().err
