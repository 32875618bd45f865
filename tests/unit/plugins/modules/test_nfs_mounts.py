# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._nfs import Action
from ansible_collections.turnkey.hpc.plugins.modules import nfs_mounts


class Systemd:
    """Answers as systemctl and journalctl do."""

    def __init__(self, rc=0, err="", log=""):
        self.rc, self.err, self.log, self.calls = rc, err, log, []

    def __call__(self, argv, stdin=None):
        self.calls.append(argv)
        return (0, self.log, "") if argv[0] == "journalctl" else (self.rc, "", self.err)


def test_a_unit_is_written_whole_and_readable(tmp_path):
    target = tmp_path / "shared.mount"
    nfs_mounts.apply(Action("write", str(target), text="[Mount]\n"), Systemd())
    assert target.read_text(encoding="ascii") == "[Mount]\n"
    assert target.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["shared.mount"]


def test_a_mount_point_that_holds_something_stays(tmp_path):
    (tmp_path / "data").touch()
    nfs_mounts.apply(Action("rmdir", str(tmp_path)), Systemd())
    assert tmp_path.is_dir()


@pytest.mark.parametrize(
    ("verb", "call"),
    [("start", ["start", "a.mount"]), ("enable", ["enable", "a.mount"]), ("reload", ["daemon-reload"])],
)
def test_units_are_handled_by_systemctl_without_questions(verb, call):
    systemd = Systemd()
    nfs_mounts.apply(Action(verb, "a.mount"), systemd)
    assert systemd.calls == [["systemctl", "--no-ask-password", *call]]


@pytest.mark.parametrize(("verb", "remedy"), [("stop", "fuser -vm"), ("start", "TCP port 2049")])
def test_a_failure_says_what_systemd_said_and_what_to_do(verb, remedy):
    with pytest.raises(HpcError, match=remedy) as caught:
        nfs_mounts.apply(Action(verb, "a.mount"), Systemd(rc=1, err="Job failed.", log="umount: /a: target is busy."))
    assert "Job failed." in str(caught.value)
    assert "target is busy" in str(caught.value)
