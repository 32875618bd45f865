# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.turnkey.hpc.plugins.plugin_utils import _peers


class Hostvars:
    def raw_get(self, host):
        return {"inventory_hostname": host}


class Templar:
    def __init__(self, variables):
        self.available_variables = variables


class Peer:
    def __init__(self, host, look):
        self._templar = Templar({"inventory_hostname": host})
        self.look, self.cleaned = look, False

    def cleanup(self):
        self.cleaned = True


@pytest.mark.parametrize(
    ("outcome", "answer"),
    [
        ({"changed": True}, {"changed": True}),
        (AnsibleConnectionFailure("no route"), {"unreachable": True, "msg": "no route"}),
        (AnsibleError("no python"), {"failed": True, "msg": "no python"}),
    ],
)
def test_a_host_that_does_not_answer_is_an_answer_and_the_connection_is_cleaned_up(
    monkeypatch, outcome, answer
) -> None:
    peers = []

    def peer(_action, host, variables, look):
        assert variables == {"inventory_hostname": host}
        peers.append(Peer(host, look))
        return peers[0]

    def execute(one, module_name, module_args, task_vars):
        assert (module_name, module_args, task_vars) == ("a.b.c", {"x": 1}, {"inventory_hostname": "node1"})
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(_peers, "_peer", peer)
    monkeypatch.setattr(ActionBase, "_execute_module", execute)
    assert _peers.run_on(None, "node1", Hostvars(), "a.b.c", {"x": 1}, True) == answer
    assert peers[0].cleaned
    assert peers[0].look
