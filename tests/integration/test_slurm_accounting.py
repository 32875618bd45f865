# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""slurm_accounting on a real slurmdbd with MariaDB in a container, and its database saved and restored.

TURNKEY_SLURM_IMAGE=turnkey/node:debian13 runs the same with another release.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import docker
import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]
IMAGE = os.environ.get("TURNKEY_SLURM_IMAGE", "turnkey/node:debian12")
INSTALL = """
command -v slurmdbd sacctmgr mariadbd >/dev/null && exit
printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
plugin=$(apt-cache pkgnames slurm-wlm-mysql-plugin)
apt-get -qq install --no-install-recommends slurmdbd munge slurm-client mariadb-server $plugin
rm /usr/sbin/policy-rc.d
"""
CONFIGURE = """
head -c 1024 /dev/urandom >/etc/munge/munge.key; chown munge: /etc/munge/munge.key; chmod 400 /etc/munge/munge.key
mkdir -p /etc/slurm
printf 'ClusterName=lab\\nSlurmctldHost=ctl\\n' >/etc/slurm/slurm.conf
printf 'AccountingStorageType=accounting_storage/slurmdbd\\nAccountingStorageHost=ctl\\n' >>/etc/slurm/slurm.conf
printf 'NodeName=ctl\\nPartitionName=main Nodes=ctl\\n' >>/etc/slurm/slurm.conf
printf 'AuthType=auth/munge\\nDbdHost=ctl\\nSlurmUser=slurm\\nStorageUser=slurm\\n' >/etc/slurm/slurmdbd.conf
printf 'StorageType=accounting_storage/mysql\\nPidFile=/run/slurm-test.pid\\n' >>/etc/slurm/slurmdbd.conf
chown slurm: /etc/slurm/slurmdbd.conf; chmod 600 /etc/slurm/slurmdbd.conf
install -d -o slurm /var/log/slurm
systemctl restart munge mariadb
mariadb -e "CREATE USER slurm@localhost IDENTIFIED VIA unix_socket; GRANT ALL ON slurm_acct_db.* TO slurm@localhost"
systemctl restart --no-block slurmdbd
"""
LIMITS = {"MaxTRESPerUser": {"cpu": 8, "mem": "16G"}, "MaxWallDurationPerJob": "02:00:00", "GraceTime": 90}
QOS = [
    {"name": "teaching", "limits": {**LIMITS, "Flags": ["DenyOnLimit"], "UsageFactor": 1.5, "PreemptMode": "requeue"}},
    {"name": "urgent", "limits": {"Preempt": ["teaching"], "Priority": 100}},
]
ACCOUNTS = [
    {
        "name": "optics",
        "parent": "physics",
        "limits": {"GrpTRES": {"cpu": 4, "mem": "2T"}, "GrpTRESMins": {"cpu": "2M"}},
    },
    {
        "name": "physics",
        "organization": "Science",
        "description": "All of it",
        "limits": {"Fairshare": 60, "GrpWall": 90},
    },
    {"name": "course", "limits": {"Fairshare": "parent", "QOS": ["teaching"], "DefaultQOS": "teaching"}},
]
USERS = [
    {
        "name": "alice",
        "accounts": ["optics", "course"],
        "admin_level": "operator",
        "account_limits": {"course": {"MaxJobs": 2}},
    },
    *({"name": f"user{n}", "accounts": ["course"], "limits": {"MaxSubmitJobs": 20}} for n in range(100)),
]
DECLARED = {"qos": QOS, "accounts": ACCOUNTS, "users": USERS}
OTHERS = {
    "qos": QOS[:1],
    "accounts": [{"name": "optics", "limits": {"GrpTRES": {"cpu": 5}}}, ACCOUNTS[2]],
    "users": [{"name": "alice", "accounts": ["course"]}],
    "purge": True,
}
# What is done one after the other, as (name, check mode, arguments).
STEPS = (
    ("foretold", True, DECLARED),
    ("first", False, DECLARED),
    ("second", False, DECLARED),
    ("unknown", False, {"qos": [{"name": "new"}], "accounts": [{"name": "other", "limits": {"GrpTRES": {"cpus": 1}}}]}),
    ("less", False, {"users": []}),
    ("purged", False, OTHERS),
    ("again", False, OTHERS),
    ("emptied", False, {"purge": True}),
)
LOOKED_AFTER = ("first", "second", "unknown", "purged", "emptied")
SAVED = {"parts": ["accounting"], "path": "/root/saved", "cluster": "lab"}
LOOK = "for what in account user qos association; do sacctmgr -nP show $what; done"


def run(container, command: str) -> str:
    code, output = container.exec_run(["bash", "-c", command])
    assert code == 0, f"{command}: {output.decode()}"
    return output.decode()


@pytest.fixture(scope="module")
def database():
    engine = docker.from_env()
    if not engine.images.list(name=IMAGE):
        subprocess.run(["make", "image"], cwd=TOP, check=True)
    container = engine.containers.run(
        IMAGE,
        name=f"turnkey-test-slurmdbd-{uuid.uuid4().hex[:8]}",
        hostname="ctl",
        detach=True,
        cap_add=["ALL"],
        cap_drop=["SYS_RESOURCE"],
        security_opt=["seccomp=unconfined", "apparmor=unconfined"],
        cgroupns="private",
        tmpfs={"/run": "", "/run/lock": "", "/tmp": "exec"},
    )
    try:
        # poll interval
        run(container, "until systemctl is-system-running --wait | grep -qE 'running|degraded'; do sleep 0.2; done")
        run(container, INSTALL)
        run(container, CONFIGURE)
        yield container
    finally:
        container.remove(force=True, v=True)
        engine.close()


@pytest.fixture(scope="module")
def results(database, tmp_path_factory):
    """What each of STEPS answered, and what was in the database after it."""
    place = tmp_path_factory.mktemp("slurm")
    tasks: list[dict] = []
    for name, check, arguments in STEPS:
        task = {"turnkey.hpc.slurm_accounting": {"cluster": "lab", **arguments}, "register": name, "failed_when": False}
        tasks += [{**task, "check_mode": check}]
        if name in LOOKED_AFTER:
            tasks += [{"ansible.builtin.shell": LOOK, "register": f"after_{name}"}]
        if name == "second":
            tasks += [{"turnkey.hpc.slurm_backup": {**SAVED, "hold_controller": False, "made_at": "now"}}]
    tasks += [
        {"ansible.builtin.command": "systemctl stop slurmdbd"},
        {"turnkey.hpc.slurm_restore": SAVED, "register": "restored"},
        {"ansible.builtin.command": "systemctl start slurmdbd"},
        # It waits for slurmdbd.
        {"turnkey.hpc.slurm_accounting": {"cluster": "lab"}},
        {"ansible.builtin.shell": LOOK, "register": "after_restored"},
    ]
    names = [*(name for name, *_rest in STEPS), *(f"after_{name}" for name in (*LOOKED_AFTER, "restored")), "restored"]
    values = {name: f"{{{{ {name} }}}}" for name in names}
    here = {"dest": str(place / "results.json"), "content": values, "mode": "0600"}
    tasks += [{"ansible.builtin.copy": here, "delegate_to": "localhost", "vars": {"ansible_connection": "local"}}]
    play = {"hosts": "ctl", "gather_facts": False, "tasks": tasks}
    host = {
        "ansible_connection": "community.docker.docker",
        "ansible_host": database.name,
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    (place / "play.yml").write_text(yaml.safe_dump([play]))
    (place / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"ctl": host}}}))
    argv = [Path(sys.executable).with_name("ansible-playbook"), "-i", "hosts.yml", "play.yml"]
    done = subprocess.run(argv, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((place / "results.json").read_text())


def rows(results, step: str) -> list[str]:
    return results[f"after_{step}"]["stdout_lines"]


def test_check_mode_foretells_what_the_first_run_does_and_a_second_one_finds_nothing_to_do(results) -> None:
    assert results["first"].get("msg") is None
    assert results["first"]["changed"]
    assert results["foretold"]["changes"] == results["first"]["changes"]
    assert not results["second"]["changed"], results["second"]["changes"]
    assert rows(results, "second") == rows(results, "first")


def test_what_slurm_has_is_what_was_declared(results) -> None:
    text = "\n".join(rows(results, "first"))
    assert "physics|all of it|science" in text
    assert "alice|optics|Operator" in text
    assert "mem=16G" in text
    assert text.count("user99|") >= 2


def test_an_unknown_resource_is_refused_before_anything_is_written(results) -> None:
    assert "GrpTRES of account other names the resource 'cpus', which Slurm doesn't know" in results["unknown"]["msg"]
    assert rows(results, "unknown") == rows(results, "second")


def test_what_is_no_longer_declared_stays_until_it_is_purged(results) -> None:
    assert not results["less"]["changed"]
    assert results["purged"].get("msg") is None
    assert not results["again"]["changed"], results["again"]["changes"]
    text = "\n".join(rows(results, "purged"))
    assert "all of it" not in text
    assert "user99" not in text
    assert "urgent" not in text
    assert "account optics: Parent: physics -> root" in results["purged"]["changes"]
    assert "account optics: GrpTRES: cpu=4,mem=2097152M -> cpu=5" in results["purged"]["changes"]
    assert "account optics: GrpTRESMins: cpu=2000000 -> none" in results["purged"]["changes"]


def test_a_purge_leaves_what_is_slurms_own(results) -> None:
    assert results["emptied"].get("msg") is None
    text = "\n".join(rows(results, "emptied"))
    assert "alice" not in text
    assert "optics" not in text
    assert "root|default root account|root" in text
    assert "root|root|Administrator" in text
    assert "normal|0|" in text


def test_a_database_that_was_emptied_comes_back_whole(results) -> None:
    assert results["restored"]["manifests"][0]["cluster"] == "lab"
    assert rows(results, "restored") == rows(results, "second")
