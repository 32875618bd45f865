# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory and the playbooks that docs/alicloud.md walks through, run as a user does; the stand-in is the cloud.

All of it happens in a network namespace whose only network is its loopback, which has the addresses that the stand-in
gives to bastions: a call to the real cloud could not leave it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("alibabacloud_ecs20140526", reason="pip install -r requirements-alicloud.txt")

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
INSIDE = """
set -eu
ip link set lo up
ip addr add 198.51.100.0/24 dev lo
cd "$STANDINS"
"$PYTHON" -m alicloud_standin --speed 3 >"$SITE/standin.json" &
"$PYTHON" -c 'import socket
listener = socket.create_server(("0.0.0.0", 22), backlog=50)
while True: listener.accept()[0].close()' &
until [ -s "$SITE/standin.json" ]; do read -rt 0.05 <> <(:) || :; done
port=$("$PYTHON" -c 'import json, os; print(json.load(open(os.environ["SITE"] + "/standin.json"))["port"])')
export TURNKEY_ALICLOUD_ENDPOINT=127.0.0.1:$port
cd "$SITE"
trap 'kill $(jobs -p)' EXIT
play() { # LOG PLAYBOOK OPTIONS...
    local log=$1; shift
    "$BIN/ansible-playbook" -i machines.cloud.yml "turnkey.hpc.$@" >"$log" 2>&1 || echo "exit $?" >>"$log"
}
play check provision --check --diff
play first provision
"$BIN/ansible-inventory" -i machines.cloud.yml --list >inventory 2>inventory.err
play second provision
play list clusters
cp .secrets/access/ssh_config ssh_config
play refused destroy -e destroy_confirm=wrong
play destroyed destroy -e destroy_confirm=lab
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alicloud") / "site"
    shutil.copytree(ROOT / "inventories/alicloud", folder)
    config = re.sub(r"(enable_plugins = )", r"\1turnkey.hpc.cloud, ", (ROOT / "ansible.cfg").read_text())
    (folder / "ansible.cfg").write_text(config)
    environment = {
        **os.environ,
        "ALIBABA_CLOUD_ACCESS_KEY_ID": "standin-key-id",
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "standin-key-secret",
        "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
        "ANSIBLE_HOME": str(folder / "ansible"),
        "BIN": str(BIN),
        "PYTHON": sys.executable,
        "SITE": str(folder),
        "STANDINS": str(ROOT / "tests/standins"),
    }
    done = subprocess.run(
        ["unshare", "--net", "--map-root-user", "bash", "-c", INSIDE],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def recap(site, log):
    text = (site / log).read_text()
    found = re.search(r"localhost +: ok=\d+ +changed=(\d+) +unreachable=0 +failed=(\d+)", text)
    assert found, text
    return int(found[1]), int(found[2]), text


def test_check_mode_shows_the_plan(site):
    changed, failed, text = recap(site, "check")
    assert (changed, failed) == (1, 0), text
    assert "+machine node2\n+  address: 10.20.0.139\n" in text


def test_the_first_run_shows_progress_and_how_to_log_in(site):
    changed, failed, text = recap(site, "first")
    assert (changed, failed) == (1, 0), text
    assert "10/10 create machine node" in text
    assert re.search(r"head is reached at 198\.51\.100\.\d+ port 22 as root", text)
    assert re.search(r"Log in: ssh -F \S+/ssh_config\s+head", text)


def test_the_second_run_changes_nothing(site):
    changed, failed, text = recap(site, "second")
    assert (changed, failed) == (0, 0), text


def test_the_cluster_is_in_the_list_of_clusters(site):
    assert re.search(r"lab  3 machines, 3 running, head at 198\.51\.100\.\d+", recap(site, "list")[2])


def test_the_inventory_has_the_groups_of_the_tags(site):
    listed = json.loads((site / "inventory").read_text())
    assert listed["compute"]["hosts"] == ["node1", "node2"]
    assert listed["controller"]["hosts"] == ["head"]


def test_nodes_are_reached_through_the_head_with_known_host_keys(site):
    text = (site / "ssh_config").read_text()
    assert "    HostName 10.20.0.138\n    ProxyJump head\n" in text
    assert "StrictHostKeyChecking yes" in text


def test_destroy_wants_the_name_of_the_cluster_and_then_leaves_nothing(site):
    assert "Removing cluster lab was not confirmed" in recap(site, "refused")[2]
    assert recap(site, "destroyed")[:2] == (1, 0)
    assert not (site / ".secrets/access").exists()


def test_the_secret_key_is_in_no_file_and_no_output(site):
    for path in site.rglob("*"):
        if path.is_file() and path.name != "standin.json":
            assert b"standin-key-secret" not in path.read_bytes(), path
