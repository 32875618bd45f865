# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import pwd
import socket

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.member import (
    become_a_member,
    hosts_block,
    payload_for,
    plain_run,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError

ME = pwd.getpwuid(0).pw_name
HOSTS = """\
127.0.0.1 localhost
#[turnkey.hpc hosts] 10.0.0.10 head
# BEGIN turnkey.hpc hosts
10.0.0.10 head.lab.internal head
# END turnkey.hpc hosts
10.9.9.9 own
"""


def payload(tmp_path, **more):
    profile = {
        "domain": "lab.internal",
        "addresses": {"b1": "10.0.0.100"},
        "copied": ["/etc/munge/munge.key", "/etc/none"],
        "files": [{"path": "/etc/default/slurmd", "content": "SLURMD_OPTIONS=-b\n"}],
        "units": ["munge.service", "slurmd.service"],
        "clock_units": ["chrony.service"],
        **more,
    }
    key = tmp_path / "head/etc/munge/munge.key"
    key.parent.mkdir(parents=True, exist_ok=True)
    key.write_bytes(b"\x00secret")
    key.chmod(0o400)
    return json.loads(payload_for(socket.gethostname(), profile, HOSTS, "a certificate", tmp_path / "head"))


def recorder(failing="", shown=""):
    calls = []

    def run(argv, stdin=None):
        calls.append(" ".join(argv))
        if failing and failing in calls[-1]:
            return 1, "", "Job failed"
        return 0, shown if "show" in argv else "", ""

    return run, calls


def test_only_the_lines_of_the_cluster_are_handed_on():
    assert hosts_block(HOSTS) == "10.0.0.10 head.lab.internal head\n"


def test_a_member_has_the_names_the_key_and_its_files_and_starts_slurmd_last(tmp_path):
    root = tmp_path / "node"
    run, calls = recorder()
    become_a_member(payload(tmp_path), run, root)
    assert "10.0.0.100 b1.lab.internal b1\n" in (root / "etc/hosts").read_text(encoding="utf-8")
    assert "10.0.0.10 head.lab.internal head\n" in (root / "etc/hosts").read_text(encoding="utf-8")
    key = root / "etc/munge/munge.key"
    assert key.read_bytes() == b"\x00secret"
    assert key.stat().st_mode & 0o777 == 0o400
    assert (root / "etc/default/slurmd").read_text(encoding="utf-8") == "SLURMD_OPTIONS=-b\n"
    assert (root / "etc/ssh/turnkey/ssh_host_ed25519_key-cert.pub").read_text(encoding="utf-8") == "a certificate"
    assert calls[-1] == "systemctl restart slurmd.service"
    assert not (root / "etc/none").exists()


@pytest.mark.parametrize("container", [True, False])
def test_only_a_machine_has_a_clock_of_its_own(tmp_path, container):
    run, calls = recorder("" if container else "systemd-detect-virt")
    become_a_member(payload(tmp_path), run, tmp_path / "node")
    assert any("restart chrony.service" in call for call in calls) is not container


@pytest.mark.parametrize(
    ("shown", "read"),
    [
        ("LoadState=loaded\nNeedDaemonReload=no\n\nLoadState=loaded\nNeedDaemonReload=no\n", False),
        ("LoadState=loaded\nNeedDaemonReload=no\n\nLoadState=loaded\nNeedDaemonReload=yes\n", True),
        ("LoadState=not-found\nNeedDaemonReload=no\n", True),
        ("", True),
    ],
)
def test_systemd_reads_its_units_again_only_if_it_must(tmp_path, shown, read):
    run, calls = recorder(shown=shown)
    become_a_member(payload(tmp_path), run, tmp_path / "node")
    assert ("systemctl daemon-reload" in calls) is read


def test_a_service_that_does_not_start_keeps_the_node_out(tmp_path):
    run, calls = recorder("restart munge.service")
    with pytest.raises(HpcError, match=r"restart .*munge\.service failed: Job failed"):
        become_a_member(payload(tmp_path), run, tmp_path / "node")
    assert "systemctl restart slurmd.service" not in calls


def test_a_shared_directory_that_is_not_there_keeps_the_node_out(tmp_path):
    with pytest.raises(HpcError, match="/shared is not there"):
        become_a_member(payload(tmp_path, directories=["/shared"]), recorder()[0], tmp_path / "node")


def test_a_program_that_is_missing_is_an_answer():
    assert plain_run(["/no/such/program"])[0] == 127
    assert plain_run(["cat"], "x")[1] == "x"
