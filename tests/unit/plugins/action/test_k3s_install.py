# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.turnkey.hpc.plugins.action.k3s_install import ActionModule

SUMS = "{}  k3s\n{}  k3s-airgap-images-amd64.tar\n"


class Shell:
    tmpdir = "/tmp/there"


class Connection:
    _shell = Shell()


class Task:
    check_mode = False
    async_val = 0
    diff = False

    def __init__(self, **arguments):
        self.args = arguments


class Recorded(ActionModule):
    """The action with a host that lacks what ``lacks`` says; what is sent and asked is noted."""

    def __init__(self, task, lacks):
        self._task, self._connection, self.lacks, self.sent, self.asked = task, Connection(), lacks, [], []

    def _execute_module(self, module_name, module_args, **_more):
        self.asked.append(module_args)
        return {"changed": bool(self.lacks), "wanted": self.lacks, "missing": self.lacks, "before": "v1"}

    def _transfer_file(self, local_path, remote_path):
        self.sent.append(remote_path)
        return remote_path

    def _remove_tmp_path(self, path):
        self.sent.append(f"removed {path}")


@pytest.fixture
def release(tmp_path):
    for name in ("k3s", "k3s-airgap-images-amd64.tar"):
        (tmp_path / name).write_text(name)
    digests = [hashlib.sha256(name.encode()).hexdigest() for name in ("k3s", "k3s-airgap-images-amd64.tar")]
    (tmp_path / "sha256sum-amd64.txt").write_text(SUMS.format(*digests))
    return tmp_path


def act(monkeypatch, release, lacks, check_mode=False):
    monkeypatch.setattr("ansible.plugins.action.ActionBase.run", lambda *_: {})
    task = Task(release_dir=str(release), version="v1.34.2+k3s1")
    task.check_mode = check_mode
    action = Recorded(task, lacks)
    return action, action.run()


def test_a_host_that_has_everything_is_asked_once_and_sent_nothing(monkeypatch, release):
    action, _result = act(monkeypatch, release, [])
    assert (len(action.asked), action.sent) == (1, [])


def test_just_what_a_host_lacks_is_sent_and_removed_from_where_it_arrived(monkeypatch, release):
    action, result = act(monkeypatch, release, ["k3s"])
    assert action.sent == ["/tmp/there/k3s", "removed /tmp/there"]
    assert [item.get("source") for item in action.asked[1]["_files"]] == ["/tmp/there/k3s", None]
    assert result["before"] == "v1"


def test_check_mode_sends_nothing(monkeypatch, release):
    assert act(monkeypatch, release, ["k3s"], check_mode=True)[0].sent == []


def test_a_file_that_is_not_what_its_list_says_is_never_sent(monkeypatch, release):
    (release / "k3s").write_text("changed")
    with pytest.raises(AnsibleActionFail, match="and its list says"):
        act(monkeypatch, release, ["k3s"])
