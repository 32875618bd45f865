# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import subprocess

import pytest

SMALL_DISK = """
set -e
systemctl stop slurmctld slurmdbd mariadb
mkdir /mnt/disk
mount -t tmpfs -o size=400m tmpfs /mnt/disk
for place in lib/slurm lib/mysql log/slurm; do
  mkdir -p /mnt/disk/$place
  cp -a /var/$place/. /mnt/disk/$place/
  chown --reference=/var/$place /mnt/disk/$place
  mount --bind /mnt/disk/$place /var/$place
done
systemctl start mariadb slurmdbd slurmctld
"""
OLD_DISK = """
systemctl stop slurmctld slurmdbd mariadb
for place in lib/slurm lib/mysql log/slurm; do
  umount /var/$place
  cp -a /mnt/disk/$place/. /var/$place/
done
umount /mnt/disk && rmdir /mnt/disk
systemctl start mariadb slurmdbd slurmctld
"""


@pytest.fixture
def jobs(make_jobs):
    return make_jobs("faults")


@pytest.mark.parametrize(
    ("node", "unit"),
    [
        ("head", "slurmctld"),
        ("head", "slurmdbd"),
        ("head", "mariadb"),
        ("head", "munge"),
        ("node1", "slurmd"),
        ("node1", "munge"),
    ],
)
def test_a_daemon_that_is_killed_comes_back_and_every_job_runs_once(jobs, node, unit):
    batch = jobs.submit(held=True)
    jobs.kill(node, unit)
    jobs.wait_for_health()
    jobs.release(batch)
    jobs.assert_each_ran_once(batch)


def test_all_daemons_of_the_controller_are_killed_at_once(jobs):
    batch = jobs.submit(held=True)
    jobs.kill("head", "munge", "mariadb", "slurmdbd", "slurmctld")
    jobs.wait_for_health()
    jobs.release(batch)
    jobs.assert_each_ran_once(batch)


def test_a_controller_that_loses_power_comes_back_with_its_queue(jobs):
    # None may end in the seconds before, which slurmctld has not written down: it would run again (docs/slurm.md).
    batch = jobs.submit(seconds=30)
    jobs.power_off("head")
    jobs.power_on("head")
    jobs.wait_for_health()
    jobs.assert_each_ran_once(batch)


def test_the_jobs_of_a_node_that_loses_power_run_again(jobs):
    batch = jobs.submit()
    jobs.power_off("node1")
    # No machine is back sooner. A container would be, and slurmctld misses no job that is younger than the sum of
    # BatchStartTimeout and MessageTimeout.
    jobs.until("the jobs of node1 are older than 20 s", lambda: min(jobs.ages_on("node1")) > 22, 60)
    jobs.power_on("node1")
    jobs.wait_for_health()
    jobs.assert_each_completed(batch)


def test_a_node_without_network_for_a_while_goes_on_with_its_jobs(jobs):
    batch = jobs.submit(seconds=40)
    node = jobs.at("node1")
    gateway = node.check_output("ip route show default")
    node.check_output("ip link set eth0 down")
    try:
        jobs.until("the controller misses node1", lambda: "*" in jobs.state_of("node1"), 60)
    finally:
        node.check_output(f"ip link set eth0 up && ip route replace {gateway}")
    jobs.wait_for_health()
    jobs.assert_each_ran_once(batch)


def test_a_full_disk_of_the_controller_loses_no_job(jobs):
    head = jobs.at("head")
    try:
        head.check_output("sh -c %s", SMALL_DISK)
        jobs.wait_for_health()
        batch = jobs.submit(seconds=10)
        head.run("dd if=/dev/zero of=/mnt/disk/fill bs=64k")
        refused = head.run("su - alice -c 'sbatch --wrap true'")
        assert refused.rc != 0
        assert "I/O error" in refused.stderr
        # Those that run end, and what ends is kept until there is room to write it down.
        jobs.until("the running jobs end", lambda: jobs.ended(batch), 60)
        head.check_output("rm /mnt/disk/fill")
        jobs.wait_for_health()
        jobs.assert_each_ran_once(batch)
    finally:
        head.run("rm -f /mnt/disk/fill")
        head.check_output("sh -c %s", OLD_DISK)
    jobs.wait_for_health()


def test_nothing_is_left_that_a_hand_must_mend(jobs):
    assert jobs.at("head").check_output("sinfo --noheader --list-reasons") == ""
    for node in ("head", "node1", "node2"):
        assert jobs.at(node).check_output("systemctl list-units --failed --no-legend") == ""
    assert subprocess.run(["docker", "exec", "faults-head", "scontrol", "ping"], check=True).returncode == 0
