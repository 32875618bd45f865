# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import pytest


@pytest.fixture
def jobs(make_jobs):
    return make_jobs("failover")


def ping(jobs, host):
    """Return what each controller says of itself, seen from ``host``."""
    lines = jobs.at(host).run("scontrol ping").stdout.splitlines()
    return [line.rsplit(" is ", 1)[-1].rstrip(".") for line in lines if " is " in line]


def test_the_standby_takes_over_with_every_job_and_gives_back(jobs):
    jobs.until("both controllers are up", lambda: ping(jobs, "node1") == ["UP", "UP"], 60)
    # slurmctld copies what it needs of the accounting to disk every 5 minutes. Before that no controller starts
    # without the database, which is on the head here.
    copied = "test -e /shared/slurmctld/last_tres"
    jobs.until("the accounting is copied", lambda: jobs.at("standby").run(copied).rc == 0, 400)
    batch = jobs.submit()
    number = batch.split()[0]
    jobs.power_off("head")

    def queue():
        return jobs.at("node1").run("squeue --noheader --jobs=%s", number)

    jobs.until("the standby has the queue", lambda: queue().rc == 0, 120)
    assert ping(jobs, "node1") == ["DOWN", "UP"]
    # The accounting is on the head, too: jobs run without it, and what they cost is told later.
    jobs.until("the queue is empty", lambda: not queue().stdout, 180)
    later = jobs.submit(count=6, seconds=5, host="standby")
    jobs.until("the queue is empty", lambda: not jobs.at("node1").run("squeue --noheader").stdout, 180)

    jobs.power_on("head")
    jobs.until("the head has its part again", lambda: ping(jobs, "node1") == ["UP", "UP"], 120)
    jobs.wait_for_health()
    jobs.assert_each_ran_once(batch)
    jobs.assert_each_ran_once(later)


def test_a_standby_that_loses_power_is_missed_by_nobody(jobs):
    batch = jobs.submit()
    jobs.power_off("standby")
    jobs.assert_each_ran_once(batch)
    jobs.power_on("standby")
    jobs.until("both controllers are up", lambda: ping(jobs, "node1") == ["UP", "UP"], 120)
