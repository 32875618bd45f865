# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

from ansible_collections.turnkey.hpc.plugins.module_utils._elastic import verbs


def test_a_refused_request_is_told_nothing_but_that(tmp_path, monkeypatch, capsys):
    settings = tmp_path / "host.json"
    settings.write_text(json.dumps({"cluster": "lab", "kinds": []}), encoding="utf-8")
    monkeypatch.setattr(verbs, "HOST_SETTINGS", settings)
    logged = []
    monkeypatch.setattr(verbs.syslog, "syslog", lambda _level, text: logged.append(text))
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.9 1 10.0.0.1 22")
    for request in ("bash -i", "resume head", "", "status; id"):
        monkeypatch.setenv("SSH_ORIGINAL_COMMAND", request)
        assert verbs.serve([]) == 3
    found = capsys.readouterr()
    assert (found.out, found.err) == ("", "refused\n" * 4)
    assert all(text.startswith("from=10.0.0.9 event=refused") for text in logged)


def test_settings_that_are_wrong_are_an_answer_that_the_controller_can_show(tmp_path, monkeypatch, capsys):
    settings = tmp_path / "host.json"
    settings.write_text(json.dumps({"kinds": [{"name": "burst", "provider": "vmware"}]}), encoding="utf-8")
    monkeypatch.setattr(verbs, "HOST_SETTINGS", settings)
    monkeypatch.setenv("SSH_ORIGINAL_COMMAND", "status")
    assert verbs.serve([]) == 0
    assert "vmware" in json.loads(capsys.readouterr().out)["error"]["text"]
