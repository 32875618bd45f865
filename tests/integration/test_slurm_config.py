# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""slurm_config on a real slurmctld in a container: what it refuses, writes and puts into force.

TURNKEY_SLURM_IMAGE=turnkey/node:debian13 runs the same with another release.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

import docker
import pytest
import yaml
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.keys import RELEASES, leads, release_of, table

TOP = Path(__file__).resolve().parents[2]
IMAGE = os.environ.get("TURNKEY_SLURM_IMAGE", "turnkey/node:debian12")
INSTALL = """
command -v slurmctld slurmdbd >/dev/null && exit
printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update && apt-get -qq install --no-install-recommends slurmctld slurmdbd munge slurm-client
rm /usr/sbin/policy-rc.d
"""
OPTIONS = {
    "cluster_name": "test",
    "kinds": [{"name": "declared", "nodes": "n[1-4]", "cpus": 2, "memory_mb": 1000}],
    "partitions": [{"name": "main", "default": True, "max_time": "INFINITE"}],
    "defaults": {
        "slurm.conf": {"SelectType": "select/cons_tres", "ProctrackType": "proctrack/linuxproc", "ReturnToService": 2},
        "cgroup.conf": {"ConstrainCores": True},
    },
    "owned": {
        "slurm.conf": {
            "AuthType": "auth/munge",
            "SlurmUser": "slurm",
            "StateSaveLocation": "/var/lib/slurm/slurmctld",
            "SlurmctldPidFile": "/run/slurmctld.pid",
            "SlurmctldParameters": ["enable_configless"],
        }
    },
}
# What is done one after the other, as (name, check mode, options that differ).
STEPS = (
    ("foretold", True, {}),
    ("first", False, {}),
    ("second", False, {}),
    ("refused", False, {"options": {"slurm.conf": {"MaxJobCount": "many"}, "cgroup.conf": {"ConstrainCores": False}}}),
    ("unknown", False, {"options": {"slurm.conf": {"MaxJobCont": 1, "AuthType": "auth/none"}}}),
    ("joined", False, {"nodes": ["ctl", "n1", "n2", "n3"]}),
    ("left", False, {}),
    ("reconfigured", False, {"options": {"slurm.conf": {"MessageTimeout": 20}}}),
    ("restarted", False, {"options": {"slurm.conf": {"MaxJobCount": 2000}}}),
    ("gone", False, {"state": "absent"}),
)
LOOK = (
    "cd /etc/slurm && cat slurm.conf cgroup.conf 2>/dev/null | sha256sum;"
    " systemctl show --property=MainPID --value slurmctld; ls -d /run/turnkey-slurm-* 2>/dev/null; true"
)


@pytest.fixture(scope="module")
def controller():
    engine = docker.from_env()
    if not engine.images.list(name=IMAGE):
        subprocess.run(["make", "image"], cwd=TOP, check=True)
    name = f"turnkey-test-slurm-{uuid.uuid4().hex[:8]}"
    container = engine.containers.run(
        IMAGE,
        name=name,
        hostname="ctl",
        detach=True,
        cap_add=["ALL"],
        cap_drop=["SYS_RESOURCE"],
        security_opt=["seccomp=unconfined", "apparmor=unconfined"],
        cgroupns="private",
        # slurmctld tries for ten seconds to find the address of each node.
        extra_hosts=dict.fromkeys(["n1", "n2", "n3"], "127.0.0.1"),
        tmpfs={"/run": "", "/run/lock": "", "/tmp": "exec"},
    )
    try:
        run(container, "until systemctl is-system-running --wait | grep -qE 'running|degraded'; do :; done")
        run(container, INSTALL)
        run(container, "head -c 1024 /dev/urandom >/etc/munge/munge.key; chown munge: /etc/munge/munge.key")
        run(container, "chmod 400 /etc/munge/munge.key; systemctl restart munge; systemctl stop slurmctld")
        run(container, "rm -f /etc/slurm/slurm.conf; install -d -o slurm /var/lib/slurm/slurmctld")
        yield container
    finally:
        container.remove(force=True, v=True)
        engine.close()


def run(container, command: str, check: bool = True) -> str:
    code, output = container.exec_run(["bash", "-c", command])
    text = output.decode()
    assert not check or code == 0, f"{command}: {text}"
    return text


@pytest.fixture(scope="module")
def results(controller, tmp_path_factory):
    """What each of STEPS answered, and how the files and the daemon were after it."""
    place = tmp_path_factory.mktemp("slurm")
    tasks: list[dict] = []
    for name, check, more in STEPS:
        arguments = {**OPTIONS, "controllers": [{"name": "ctl"}], "nodes": ["ctl", "n1", "n2"], **more}
        task = {"turnkey.hpc.slurm_config": arguments, "register": name, "failed_when": False, "diff": True}
        tasks += [{**task, "check_mode": True} if check else task]
        if name == "first":
            tasks += [{"ansible.builtin.command": "systemctl start slurmctld", "delegate_to": "ctl"}]
        tasks += [{"ansible.builtin.shell": LOOK, "delegate_to": "ctl", "register": f"after_{name}"}]
    values = {key: f"{{{{ {key} }}}}" for name, *_rest in STEPS for key in (name, f"after_{name}")}
    tasks += [{"ansible.builtin.copy": {"content": values, "dest": str(place / "results.json"), "mode": "0600"}}]
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}
    host = {
        "ansible_connection": "community.docker.docker",
        "ansible_host": controller.name,
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    (place / "play.yml").write_text(yaml.safe_dump([play]))
    (place / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"ctl": host}}}))
    argv = [Path(sys.executable).with_name("ansible-playbook"), "-i", "hosts.yml", "play.yml"]
    done = subprocess.run(argv, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((place / "results.json").read_text())


def after(results, name: str) -> list[str]:
    """Return the checksum of the files, slurmctld's process, and what trials left."""
    return results[f"after_{name}"]["stdout_lines"]


def test_check_mode_writes_nothing_and_its_diff_is_what_the_first_run_writes(results) -> None:
    told = [part["after"] for part in results["foretold"]["diff"]]
    written = [part["after"] for part in results["first"]["diff"]]
    assert results["foretold"]["changed"]
    assert told == written
    assert after(results, "foretold") != after(results, "first")


def test_a_node_without_declaration_is_measured_once(results) -> None:
    assert results["first"]["asked"] == ["ctl"]
    assert results["second"]["asked"] == []


def test_a_second_run_changes_nothing(results) -> None:
    assert results["first"]["changed"]
    assert results["first"]["applied"] == {"ctl": "start"}
    assert not results["second"]["changed"]
    assert after(results, "second")[0] == after(results, "first")[0]


def test_what_the_daemon_refuses_leaves_files_and_daemon_alone_and_is_told_in_its_words(results) -> None:
    assert "error: MaxJobCount value (many) is not a valid number" in results["refused"]["msg"]
    assert after(results, "refused") == after(results, "second")


def test_keys_that_are_unknown_or_owned_are_told_together(results) -> None:
    assert "`MaxJobCont` is no key" in results["unknown"]["msg"]
    assert "did you mean `MaxJobCount`?" in results["unknown"]["msg"]
    assert "`AuthType` of slurm.conf belongs to the role" in results["unknown"]["msg"]
    assert after(results, "unknown") == after(results, "second")


def test_a_node_joins_and_leaves_without_a_reconfiguration(results) -> None:
    assert not results["joined"]["failed"], results["joined"]["msg"]
    assert results["joined"]["applied"] == results["left"]["applied"] == {"ctl": "update"}
    assert after(results, "joined")[0] != after(results, "second")[0]
    assert after(results, "joined")[1] == after(results, "second")[1]
    assert after(results, "left") == after(results, "second")


def test_each_change_gets_the_least_that_does(results) -> None:
    assert results["reconfigured"]["applied"] == {"ctl": "reconfigure"}
    later = results["restarted"]["release"] >= "24.11"
    assert results["restarted"]["applied"] == {"ctl": "reconfigure" if later else "restart"}
    assert after(results, "restarted")[1] != "0"


def test_absent_leaves_no_file_and_no_trial(results, controller) -> None:
    assert results["gone"]["changed"]
    assert run(controller, "ls /etc/slurm /var/lib/turnkey/slurm /run", check=False).count("slurm.conf") == 0
    assert not any(line.startswith("/run/turnkey-slurm-") for name, *_rest in STEPS for line in after(results, name))


def every_key(name: str, lead: str) -> list[str]:
    return sorted({key: value for release in RELEASES for key, value in table(name, lead, release).items()}.values())


def test_the_daemons_know_just_the_keys_of_the_table(controller) -> None:
    release = release_of(run(controller, "slurmctld -V"))
    place = "/root/every-key"
    expected: dict[str, set[str]] = {"slurm.conf": set(), "slurmdbd.conf": set()}
    rows = {"slurm.conf": ["ClusterName=test", "SlurmctldHost=nobody", "NoSuchKey=1"], "slurmdbd.conf": ["NoSuchKey=1"]}
    for name, lines in rows.items():
        for lead in ("", *leads(name).values()):
            for number, key in enumerate(every_key(name, lead)):
                if key not in ("ClusterName", "SlurmctldHost"):
                    lines.append(f"{lead}=x{number} {key}=1" if lead else f"{key}=1")
                if key not in table(name, lead, release).values():
                    expected[name].add(key)
        text = "\n".join(lines)
        run(controller, f"mkdir -p {place} && cat >{place}/{name} <<'END'\n{text}\nEND")
    run(
        controller,
        f"chown -R slurm: {place} && chmod 700 {place} && chmod 600 {place}/slurmdbd.conf && chmod 711 /root",
    )
    said = {
        "slurm.conf": run(controller, f"timeout 20 slurmctld -D -f {place}/slurm.conf", check=False),
        "slurmdbd.conf": run(
            controller,
            f"cp -p {place}/slurmdbd.conf /etc/slurm && timeout 20 slurmdbd -D; rm /etc/slurm/slurmdbd.conf",
            check=False,
        ),
    }
    pattern = re.compile(r'unrecognized key: (\w+)|option "(\w+)" is defunct')
    for name, text in said.items():
        found = {one or other for one, other in pattern.findall(text)}
        assert found == {*expected[name], "NoSuchKey"}, name
