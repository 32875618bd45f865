# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import json
import subprocess
import sys
from pathlib import Path

import jmespath
import pytest

NODES = ("head", "node1")
RELAY = Path(__file__).parents[3] / "tests/standins/socket_relay.py"


def docker(*arguments):
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(autouse=True)
def engine():
    """This computer's engine, in a volume of the head."""
    volume = docker("volume", "inspect", "--format", "{{.Mountpoint}}", "turnkey-bare-engine")
    with subprocess.Popen([sys.executable, RELAY, f"{volume}/docker.sock", "/var/run/docker.sock"]) as process:
        yield
        process.terminate()


def elastic_machines():
    labels = ("--filter", "label=turnkey.cluster=bare", "--filter", "label=turnkey.role=elastic")
    return docker("ps", "--all", *labels, "--format", "{{.Names}}").split()


def test_bare_nodes_run_an_mpi_job_and_are_left_as_they_were(make_site):
    bare_site = make_site("bare")
    before = {node: bare_site.picture(node) for node in NODES}

    dry = bare_site.play("site", "--check", "--diff").succeeded()
    assert all(dry.changed[node] for node in NODES)
    assert {node: bare_site.picture(node) for node in NODES} == before

    bare_site.play("site").succeeded()
    bare_site.play("verify").succeeded()
    report = json.loads((bare_site.path / "verify.json").read_text())
    for check in ("mpi_hello", "slurm_mpi"):
        hosts = jmespath.search(f"checks[?name=='{check}'] | [0].detail.ranks[].host", report)
        assert sorted(hosts) == list(NODES), check

    bare_site.root("node1").check_output("su - alice -c 'echo precious >diary'")
    # A job that runs when everything is taken away.
    job = "sbatch -D / -o /dev/null -N 2 --wrap 'srun tail -f /dev/null'"
    bare_site.root("head").check_output("su - alice -c %s", job)
    # And a machine that was made for one.
    bare_site.root("head").check_output("SSH_ORIGINAL_COMMAND='resume burst1' node-power serve")
    assert elastic_machines() == ["bare-burst1"]
    bare_site.play("reset").succeeded()
    assert elastic_machines() == []
    assert bare_site.root("node1").check_output("cat /home/alice/diary") == "precious", "user data stays"
    dump = "/var/backups/slurm-accounting-bare.sql.gz"
    assert "turnkey-verify" in bare_site.root("head").check_output(f"zcat {dump}"), "what the jobs cost is user data"
    assert bare_site.root("head").file(dump).mode == 0o600
    again = bare_site.play("reset").succeeded()
    assert not any(again.changed.values()), again.output

    for node in NODES:
        after = {line for line in bare_site.picture(node) if "/home/alice" not in line}
        assert not after - before[node], f"{node} has what it had not before:\n" + "\n".join(
            sorted(after - before[node])
        )
        assert not before[node] - after, f"{node} lost what it had before:\n" + "\n".join(sorted(before[node] - after))
