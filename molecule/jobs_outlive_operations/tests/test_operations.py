# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests build on each other, in this order."""

import json
import re
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
NODES = ("head", "node1", "node2")
# A job that starts a step every moment, and ends with an error if one can't be started.
RESTLESS = "while test ! -e /shared/stop; do srun -n 1 hostname >>/shared/steps || exit 9; done"
STANDIN = "deb [trusted=yes] file:{} ./"


@pytest.fixture
def cluster(make_site):
    return make_site("operated")


@pytest.fixture
def head(cluster):
    return cluster.root("head")


def alice(head, command):
    return head.run(f"su - alice -c {json.dumps(command)}")


def submit(head, command, *options):
    done = alice(head, f"sbatch --parsable {' '.join(options)} --chdir=/tmp --output=/dev/null --wrap '{command}'")
    assert done.rc == 0, done.stderr
    return done.stdout.strip()


def until(host, condition, seconds=90):
    """Wait until the command ``condition`` succeeds."""
    deadline = time.monotonic() + seconds
    while host.run(condition).rc != 0:
        state = "squeue; sinfo; sinfo -R; sacct -a -o JobID,State,ExitCode"
        assert time.monotonic() < deadline, f"{condition}\n{host.run(state).stdout}"
        time.sleep(0.5)  # poll interval


def wait_for(head, job, state):
    """Wait until accounting, which outlives the controller's memory, says that ``job`` is in ``state``."""
    until(head, f"sacct -nXP -j {job} -o State | grep -qx {state}")


def node_module(cluster, **arguments):
    """Run slurm_node on the head as an administrator would."""
    argv = ["ansible", "-i", str(cluster.path), "head", "--become", "-m", "turnkey.hpc.slurm_node"]
    argv += ["-a", json.dumps(arguments)]
    done = subprocess.run(
        argv, cwd=ROOT, env=cluster.environment(), capture_output=True, text=True, timeout=300, check=False
    )
    return done.returncode, done.stdout


def restless_job(head):
    head.check_output("rm -f /shared/stop /shared/steps")
    job = submit(head, RESTLESS, "-n 1")
    until(head, "test -s /shared/steps")
    return job


def assert_all_went_well(head, job):
    steps = head.check_output("wc -l </shared/steps")
    # A step that waits for its turn while slurmctld restarts asks again after a minute or two.
    until(head, f"test $(wc -l </shared/steps) -gt {steps}", 300)
    shown = head.check_output(f"scontrol show job {job}")
    assert "JobState=RUNNING" in shown
    assert "Restarts=0" in shown, "it was not queued again"
    head.run("touch /shared/stop")
    wait_for(head, job, "COMPLETED")


def test_a_job_over_a_limit_is_refused_and_a_misspelt_limit_changes_nothing(cluster, head):
    cluster.play("site").succeeded()
    assert alice(head, "srun -n 2 hostname").rc == 0
    refused = alice(head, "sbatch -n 3 --wrap hostname")
    assert (refused.rc, "Job violates accounting/QOS policy" in refused.stderr) == (1, True)
    assert "Invalid account" in head.run("su - bob -c 'srun -n 1 hostname'").stderr

    wrong = json.dumps(
        {"slurm_accounts": [{"name": "other"}, {"name": "physics", "limits": {"MaxTRESPerJbo": {"cpu": 1}}}]}
    )
    run = cluster.play("slurm", "-e", wrong)
    assert run.code != 0
    assert "MaxTRESPerJbo of account physics is no limit that Slurm knows; did you mean MaxTRESPerJob?" in " ".join(
        run.output.split()
    )
    assert "other" not in head.check_output("sacctmgr -nP show account format=account").split()

    again = cluster.play("slurm").succeeded()
    assert not any(again.changed.values()), again.output


def test_a_drained_node_gets_no_job_until_it_is_resumed(cluster, head):
    drain = {"name": ["node1"], "state": "drain", "reason": "new disk", "wait_idle_seconds": 60}
    assert node_module(cluster, **drain)[0] == 0
    assert {alice(head, "srun -n 1 hostname").stdout.strip() for _time in range(3)} == {"node2"}
    assert alice(head, "srun -n 1 -w node1 --immediate=3 hostname").rc != 0
    assert "changed: false" in node_module(cluster, **drain)[1]

    busy = submit(head, "srun tail -f /dev/null", "-w node2")
    wait_for(head, busy, "RUNNING")
    code, said = node_module(cluster, name=["node[1-2]"], state="drain", reason="move", wait_idle_seconds=2)
    assert code != 0
    assert re.search(rf"jobs still hold .*job {busy} \(wrap\) of alice, RUNNING on node2", said)
    alice(head, f"scancel {busy}")
    assert node_module(cluster, name=["node[1-2]"], state="resume")[0] == 0
    assert alice(head, "srun -n 1 -w node1 hostname").stdout.strip() == "node1"


def test_a_job_that_starts_step_after_step_does_not_notice_a_new_munge_key(cluster, head):
    def keys():
        return {cluster.root(node).check_output("sha256sum /etc/munge/munge.key") for node in NODES}

    before = keys()
    job = restless_job(head)
    cluster.play("rotate_munge_key").succeeded()
    assert len(before) == len(keys()) == 1
    assert before != keys()
    assert_all_went_well(head, job)


def test_a_rotation_that_was_cut_off_is_completed_by_running_it_again(cluster, head):
    # As if the control node had died after it wrote the new key to some: munged there has restarted since.
    node = cluster.root("node1")
    node.check_output("echo 0123456789012345678901234567890123456789 >/etc/munge/munge.key && systemctl restart munge")
    head.check_output("systemctl stop slurmctld")
    cluster.play("rotate_munge_key").succeeded()
    assert alice(head, "srun -N 2 -n 2 hostname").stdout.split() in (["node1", "node2"], ["node2", "node1"])


def test_an_upgrade_leaves_jobs_alone_and_a_step_too_far_is_refused(cluster, head):
    """The later version is a stand-in: the same programs, repacked (tests/standins/slurm_packages.py)."""
    names = "dpkg-query -W -f '${source:Package} ${Package}\\n' | sed -n 's/^slurm-wlm //p'"
    packages = sorted({name for node in NODES for name in cluster.root(node).check_output(names).split()})
    script = (ROOT / "tests/standins/slurm_packages.py").read_text()
    head.check_output(f"cat >/root/standin.py <<'END'\n{script}\nEND\napt-get update -q")
    for place, version in (("/shared/far", "24.11.5-4+standin"), ("/shared/next", "+standin")):
        head.check_output(f"python3 /root/standin.py {place} {version} {' '.join(packages)}")

    def offer(place):
        for node in NODES:
            cluster.root(node).check_output(f"echo '{STANDIN.format(place)}' >/etc/apt/sources.list.d/standin.list")

    job = restless_job(head)
    offer("/shared/far")
    refused = cluster.play("upgrade")
    assert refused.code != 0
    assert "go 22.05 -> 23.11 -> 24.11" in " ".join(refused.output.split())
    assert not any(refused.changed.values()), refused.output

    offer("/shared/next")
    cluster.play("upgrade").succeeded()
    for node in NODES:
        there = cluster.root(node)
        assert "+standin" in there.check_output("dpkg-query -W -f '${Version}' slurm-client"), node
        assert there.run("ls -l /proc/*/exe 2>/dev/null | grep 'slurm[cd].*(deleted)'").rc != 0, (
            "all run the new program"
        )
    assert_all_went_well(head, job)
    again = cluster.play("upgrade").succeeded()
    assert not any(again.changed.values()), again.output


def test_a_head_that_was_lost_comes_back_with_its_jobs(cluster, head):
    old = submit(head, "hostname")
    wait_for(head, old, "COMPLETED")
    waiting = submit(head, "hostname >/shared/after", "--hold")
    cluster.play("backup").succeeded()
    backup = max((cluster.path / ".backups/nodes-4").iterdir())
    assert {path.stat().st_mode & 0o777 for path in (backup, *backup.iterdir())} == {0o700, 0o600}

    subprocess.run(["docker", "rm", "--force", "nodes-4-head"], check=True, capture_output=True)
    cluster.play("provision").succeeded()
    cluster.play("site").succeeded()
    assert not head.check_output("sacct -nXP -a -o JobID"), "the new head knows nothing"

    stranger = cluster.play("restore", "-e", "slurm_cluster_name=other", "-e", f"slurm_restore_backup={backup}")
    assert stranger.code != 0
    assert "of cluster 'nodes-4', not of the accounting of cluster 'other'" in " ".join(stranger.output.split())

    cluster.play("restore").succeeded()
    assert head.check_output(f"sacct -nXP -j {old} -o State") == "COMPLETED"
    assert alice(head, f"scontrol release {waiting}").rc == 0
    wait_for(head, waiting, "COMPLETED")
    assert int(submit(head, "hostname")) > int(waiting), "job numbers go on"

    once_more = cluster.play("restore")
    assert once_more.code != 0
    assert "add -e slurm_restore_confirm=nodes-4" in " ".join(once_more.output.split())
    assert head.check_output("scontrol ping").endswith("UP"), "a restore that is refused stops nothing"
