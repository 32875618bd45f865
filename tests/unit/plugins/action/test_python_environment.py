# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.turnkey.hpc.plugins.action import python_environment

LOCK = {"3.11": f"one==1 --hash=sha256:{hashlib.sha256(b'').hexdigest()}\n"}
MISSING = {"changed": True, "release": "new", "missing": {"python": "3.11", "machine": "x86_64"}}


class Action(python_environment.ActionModule):
    """The action plugin, with a host that answers as it is told."""

    def __init__(self, arguments, answers, check_mode=False):
        self._task = SimpleNamespace(args=arguments, check_mode=check_mode, async_val=0, action="python_environment")
        shell = SimpleNamespace(tmpdir="/tmp/there", join_path=lambda *parts: "/".join(parts))
        self._connection = SimpleNamespace(_shell=shell)
        self.answers, self.runs, self.sent = list(answers), [], []

    def _execute_module(self, module_name, module_args, task_vars):
        self.runs.append(module_args)
        return dict(self.answers.pop(0))

    def _transfer_file(self, local_path, remote_path):
        self.sent.append(remote_path)

    def _fixup_perms2(self, paths):
        pass


@pytest.fixture(autouse=True)
def base(monkeypatch):
    monkeypatch.setattr(python_environment.ActionBase, "run", lambda self, tmp, task_vars: {})


def test_a_host_that_has_the_environment_gets_nothing():
    action = Action({"path": "/p", "requirements": LOCK}, [{"changed": False, "release": "new", "missing": {}}])
    assert action.run() == {"changed": False, "release": "new"}
    assert not action.sent


def test_a_host_that_lacks_it_gets_the_wheels_and_builds(tmp_path):
    (tmp_path / "one-1-py3-none-any.whl").touch()
    arguments = {"path": "/p", "requirements": LOCK, "wheel_dir": str(tmp_path)}
    action = Action(arguments, [MISSING, {"changed": True, "release": "new", "missing": {}}])
    assert action.run() == {"changed": True, "release": "new"}
    assert action.sent == ["/tmp/there/wheels.tar"]
    assert action.runs[1]["_wheels"] == "/tmp/there/wheels.tar"


def test_check_mode_fetches_nothing():
    action = Action({"path": "/p", "requirements": LOCK}, [MISSING], check_mode=True)
    assert action.run() == {"changed": True, "release": "new"}
    assert len(action.runs) == 1


def test_without_wheels_the_message_names_the_directory(tmp_path):
    action = Action({"path": "/p", "requirements": LOCK, "wheel_dir": str(tmp_path)}, [MISSING])
    with pytest.raises(AnsibleActionFail, match=str(tmp_path)):
        action.run()


def test_while_a_bundle_is_made_the_lock_files_are_kept_and_no_host_is_asked(tmp_path):
    action = Action({"path": "/opt/hub", "requirements": LOCK, "cache_dir": str(tmp_path)}, [])
    facts = {"bundle_locks": {"other": {"3.11": "/x"}}}
    noted = action.run(task_vars={"__bundle_collects": True, "ansible_facts": facts})["ansible_facts"]["bundle_locks"]
    assert sorted(noted) == ["hub", "other"]
    assert Path(noted["hub"]["3.11"]).read_text() == LOCK["3.11"]
    assert not action.runs
