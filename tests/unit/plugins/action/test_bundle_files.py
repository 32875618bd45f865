# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.turnkey.hpc.plugins.action.bundle_files import ActionModule
from ansible_collections.turnkey.hpc.plugins.modules.bundle_files import bring

BUNDLE = {
    "schema": 1,
    "cluster": "lab",
    "created": "2026-11-22T16:00:00Z",
    "targets": [{"release": "12", "architecture": "amd64"}],
    "files": [{"path": "npm/a.tgz", "size": 1, "sha256": hashlib.sha256(b"a").hexdigest(), "kind": "npm", "name": "a"}],
}


class Local(ActionModule):
    """The plugin with the module in the same process, and copies as transfers."""

    def _transfer_file(self, local_path, remote_path):
        Path(remote_path).write_bytes(Path(local_path).read_bytes())

    def _fixup_perms2(self, *_arguments, **_more):
        pass

    def _execute_module(self, module_name, module_args, **more):
        self.calls.append(module_args)
        return bring(self.directory, {"_archive": None, "_finish": False, "allow_older": False, **module_args})


@pytest.fixture
def play(tmp_path):
    bundle = tmp_path / "bundle"
    (bundle / "npm").mkdir(parents=True)
    (bundle / "npm/a.tgz").write_text("a")
    (bundle / "manifest.json").write_text(json.dumps(BUNDLE))
    (tmp_path / "remote").mkdir()
    sha256 = hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()

    def call(check_mode=False, manifest_sha256=sha256):
        arguments = {"bundle": str(bundle), "directory": str(tmp_path / "copy"), "manifest_sha256": manifest_sha256}
        task = SimpleNamespace(args=arguments, async_val=0, check_mode=check_mode, diff=False, action="bundle_files")
        shell = SimpleNamespace(tmpdir=str(tmp_path / "remote"), join_path=lambda *parts: "/".join(parts))
        loader = DataLoader()
        connection = SimpleNamespace(_shell=shell)
        plugin = Local(task, connection, SimpleNamespace(), loader, Templar(loader=loader), None)
        plugin.directory, plugin.calls = tmp_path / "copy", []
        return plugin.run(task_vars={}), plugin.calls

    return call


def test_what_the_host_lacks_is_brought_and_the_next_run_asks_once(play, tmp_path):
    result, _calls = play()
    assert (result["changed"], result["copied"]) == (True, 1)
    assert (tmp_path / "copy/npm/a.tgz").read_text() == "a"
    result, calls = play()
    assert not result["changed"]
    assert len(calls) == 1


def test_in_check_mode_nothing_is_brought(play, tmp_path):
    result, calls = play(check_mode=True)
    assert result["changed"]
    assert len(calls) == 1
    assert not (tmp_path / "copy").exists()


def test_a_bundle_that_was_changed_since_it_was_verified_is_refused(play):
    with pytest.raises(AnsibleActionFail, match="was changed since"):
        play(manifest_sha256="a" * 64)
