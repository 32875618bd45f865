# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import importlib.util
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CLUSTER, URL = "elastic", "https://10.97.17.10"


@pytest.fixture
def engine():
    """The engine's socket in the volume of the host that makes nodes."""
    ask = ["docker", "volume", "inspect", "--format", "{{.Mountpoint}}", f"turnkey-{CLUSTER}-engine"]
    volume = subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip()
    relay = ROOT / "tests/standins/socket_relay.py"
    with subprocess.Popen([sys.executable, relay, f"{volume}/docker.sock", "/var/run/docker.sock"]) as process:
        yield
        process.terminate()


@pytest.fixture
def person(make_site):
    """Return alice, who has logged in."""
    spec = importlib.util.spec_from_file_location("notebook_check", ROOT / "roles/jupyterhub/files/notebook_check.py")
    client = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(client)
    site = make_site("elastic")
    alice = client.Person(URL, str(site.path / ".secrets/tls_ca/ca.crt"))
    password = site.root("head").check_output("su - alice -c jupyterhub-password").strip()
    assert alice.log_in("alice", password) == 302
    return alice


@pytest.mark.usefixtures("engine")
def test_a_notebook_makes_its_node_and_its_user_reads_for_how_long_that_takes(person, make_jobs):
    jobs = make_jobs(CLUSTER)
    assert not jobs.at("head").check_output("sinfo --noheader --partition=burst --states=idle,alloc --format=%%N")
    person.start(partition="burst")
    seen = []
    follower = threading.Thread(target=lambda: seen.extend(person.messages()))
    follower.start()
    person.wait_until_ready(240)
    follower.join(30)
    times = re.findall(r"powering up: burst1 for (\d+) s", "\n".join(seen))
    assert times, seen
    assert int(times[-1]) > int(times[0]), seen
    assert person.run().split()[:3] == ["2", "alice", "burst1"]
    person.stop()
    states = "sinfo --noheader --partition=burst --Node --format=%T"
    jobs.until("the node is off", lambda: set(jobs.at("head").check_output(states).split()) == {"idle~"}, 240)
