# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import http.server
import json
import threading

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turnkey.hpc.plugins.modules import k3s_acceptance


def test_a_host_without_k3s_fails_every_check_and_is_no_error_of_the_module(capsys, monkeypatch):
    monkeypatch.setattr(k3s_acceptance, "PROGRAM", "/nowhere/k3s")
    with patch_module_args({"nodes": {"head": "127.0.0.1"}, "image": "busybox"}), pytest.raises(SystemExit):
        k3s_acceptance.main()
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["changed"]) == (False, False)
    assert not any(check["ok"] for check in found["checks"])


def test_the_ingress_is_asked_for_the_name_of_the_proof():
    class Echo(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.headers["Host"].encode())

        def log_message(self, *_args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert (
            k3s_acceptance.fetch(f"http://127.0.0.1:{server.server_port}/", "turnkey-acceptance")
            == "turnkey-acceptance"
        )
