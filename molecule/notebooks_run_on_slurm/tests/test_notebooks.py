# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What people with notebooks see of the cluster; the browser's part is in test_browser.py."""

import importlib.util
import json
import shlex
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

ROOT = Path(__file__).resolve().parents[3]
HEAD = "10.213.78.10"
URL, PLAIN = f"https://{HEAD}:8443", f"http://{HEAD}:8080"
MPI = """
import os, ipyparallel
cluster = ipyparallel.Cluster(engines="mpi", n=3, controller_ip="*", log_level=40)
workers = cluster.start_and_connect_sync(activate=False)
def work():
    import socket
    from mpi4py import MPI
    world = MPI.COMM_WORLD
    return socket.gethostname(), world.allreduce(world.rank + 1), world.size
print(sorted(workers[:].apply_sync(work)))
cluster.stop_cluster_sync()
"""


def load_person():
    """Return the class of a user, from the file that verify.yml runs on the head."""
    spec = importlib.util.spec_from_file_location("notebook_check", ROOT / "roles/jupyterhub/files/notebook_check.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CLIENT = load_person()


@pytest.fixture
def hub(site):
    return site.root("head")


@pytest.fixture
def authority(site):
    return str(site.path / ".secrets/tls_ca/ca.crt")


@pytest.fixture
def enter(hub, authority):
    """Return what logs somebody in with a one-time password. Servers that are still there at the end are stopped."""
    people = []

    def make(name):
        password = hub.check_output("su - %s -c jupyterhub-password", name).strip()
        person = CLIENT.Person(URL, authority)
        assert person.log_in(name, password) == 302
        people.append(person)
        return person

    yield make
    for person in people:
        if person.server():
            person.stop()


def jobs(hub):
    """Return the notebooks that Slurm runs, by user."""
    lines = hub.check_output("squeue --noheader --states=RUNNING --format='%u %i %j %D'").splitlines()
    return {line.split()[0]: line.split()[1:] for line in lines if "notebook-" in line}


def until(holds, seconds=30, what="it"):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.5)  # poll interval


def hub_answers(authority):
    def holds():
        try:
            return requests.get(f"{URL}/hub/health", verify=authority, timeout=5).status_code == 200
        except requests.RequestException:
            return False

    until(holds, 60, "the hub answers")


def kill(hub, unit):
    """Kill a daemon, and wait until systemd has started another one."""
    before = hub.check_output("systemctl show --property=MainPID --value %s", unit)
    hub.check_output("systemctl kill --signal=KILL --kill-who=main %s", unit)

    def again():
        now = hub.check_output("systemctl show --property=MainPID --value %s", unit)
        return now not in ("0", before) and hub.service(unit).is_running

    until(again, 60, f"{unit} runs again")


def test_the_service_is_known_by_the_clusters_authority_and_refused_without(authority):
    hub_answers(authority)
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(URL, timeout=10)


def test_the_login_page_comes_by_https_only_with_secure_cookies(authority):
    answer = requests.get(f"{PLAIN}/hub/login?x=1", allow_redirects=False, timeout=10)
    assert answer.status_code in (301, 302)
    assert answer.headers["Location"].startswith(f"{URL}/hub/login")
    page = requests.get(URL, verify=authority, timeout=10)
    assert page.url.startswith(f"{URL}/hub/login")
    assert 'type="password"' in page.text
    assert page.headers["Strict-Transport-Security"] == "max-age=31536000"
    session = requests.Session()
    session.get(f"{URL}/hub/login", verify=authority, timeout=10)
    assert session.cookies
    assert all(cookie.secure for cookie in session.cookies)


def test_the_hubs_own_port_is_closed_to_those_outside_of_the_clusters_network(hub):
    hub.check_output("ip address add 192.0.2.7/32 dev lo")
    try:
        ask = "curl --silent --max-time 3 --output /dev/null --write-out '%%{http_code}' --interface %s http://%s:8081/hub/health"
        assert hub.run(ask, HEAD, HEAD).stdout == "200"
        assert hub.run(ask, "192.0.2.7", HEAD).rc == 28
        assert hub.run(ask, "127.0.0.1", "127.0.0.1").rc == 7
    finally:
        hub.check_output("ip address del 192.0.2.7/32 dev lo")


def test_secrets_are_for_the_hub_alone(hub):
    assert hub.file("/var/lib/jupyterhub").mode == 0o700
    for name in ("cookie_secret", "proxy.env", "jupyterhub.sqlite"):
        assert hub.file(f"/var/lib/jupyterhub/{name}").mode == 0o600, name
    assert hub.file("/etc/jupyterhub/tls/server.key").mode == 0o640
    token = hub.check_output("cut -d= -f2 /var/lib/jupyterhub/proxy.env")
    assert len(token) == 64
    assert token not in hub.check_output("ps axww -o args")
    # The hub may be its users and nobody else.
    for user, code in (("alice", 0), ("root", 1), ("slurm", 1)):
        found = hub.run("runuser -u jupyterhub -- sudo -n -u %s /usr/bin/scancel --help", user)
        assert (found.rc != 0) == bool(code), (user, found.stderr)
    assert hub.run("runuser -u jupyterhub -- sudo -n -u alice /usr/bin/id").rc != 0


def test_a_password_is_good_once_and_wrong_ones_and_strangers_are_refused(hub, authority):
    password = hub.check_output("su - alice -c jupyterhub-password").strip()
    person = CLIENT.Person(URL, authority)
    assert person.log_in("bob", password) == 403
    assert person.log_in("alice", password) == 302
    assert CLIENT.Person(URL, authority).log_in("alice", password) == 403
    hub.check_output("useradd mallory && echo mallory:Correct-Horse-1 | chpasswd")
    hub.check_output("echo bob:Correct-Horse-2 | chpasswd")
    try:
        assert CLIENT.Person(URL, authority).log_in("mallory", "Correct-Horse-1") == 403
        assert CLIENT.Person(URL, authority).log_in("bob", "Correct-Horse-1") == 403
        assert CLIENT.Person(URL, authority).log_in("bob", "Correct-Horse-2") == 302
    finally:
        hub.check_output("userdel mallory && usermod -p '*' bob")


def test_two_users_compute_at_once_also_over_three_nodes_and_apart(hub, enter):
    alice, bob = enter("alice"), enter("bob")
    with pytest.raises(CLIENT.Refused, match="400"):
        alice.start(nodes=99)
    alice.start(nodes=3)
    bob.start()
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda person: person.wait_until_ready(180), (alice, bob)))
        cells = pool.submit(alice.run, MPI), pool.submit(bob.run)
        ranks, hello = (cell.result() for cell in cells)
    assert ranks.strip().splitlines()[-1] == "[('node1', 6, 3), ('node2', 6, 3), ('node3', 6, 3)]"
    number, name, _host, job = hello.split()
    assert (number, name) == ("2", "bob")
    assert jobs(hub)["bob"][0] == job
    assert jobs(hub)["alice"][2] == "3"
    # Each sees the own server only.
    assert bob.session.get(f"{URL}/user/alice/lab", timeout=20).status_code in (403, 404)
    assert bob.session.get(f"{URL}/user/alice/api/contents", timeout=20).status_code in (403, 404)
    alice.stop()
    until(lambda: "alice" not in jobs(hub), what="stopping cancels the job")
    assert bob.run("print(open('README.md').readline())").startswith("# Welcome")


def test_a_notebook_outlives_hub_proxy_controller_and_a_run_of_the_playbook(site, hub, authority, enter):
    bob = enter("bob")
    bob.start()
    bob.wait_until_ready(180)
    before = bob.run()
    for unit in ("jupyterhub", "jupyterhub-proxy", "slurmctld"):
        kill(hub, unit)
    hub_answers(authority)
    until(lambda: bob.open_lab() == 200, 60, "the proxy knows the server again")
    assert bob.run() == before
    command = ["ansible-playbook", "-i", str(site.path), "-i", str(site.path.parent / "notebooks/hub.yml")]
    command.append(str(ROOT / "playbooks/jupyterhub.yml"))
    environment = site.environment()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert {part for part in done.stdout.split() if part.startswith("changed=")} == {"changed=0"}, done.stdout
    assert bob.run() == before
    # Slurm is away: the notebook isn't.
    hub.check_output("systemctl stop slurmctld")
    try:
        assert bob.run().split()[0] == "2"
    finally:
        hub.check_output("systemctl start slurmctld")
    # A node is lost: its user is told, and can start again.
    node = before.split()[2]
    hub.check_output("scontrol update nodename=%s state=down reason=test", node)
    try:
        until(lambda: not bob.server(), 60, "the hub notices")
    finally:
        # Its slurmd may have reported for work already.
        hub.run("scontrol update nodename=%s state=resume", node)
    bob.start()
    bob.wait_until_ready(180)
    assert bob.run().split()[:2] == ["2", "bob"]


def test_verify_logs_in_and_runs_a_cell(site):
    command = ["ansible-playbook", "-i", str(site.path), "-i", str(site.path.parent / "notebooks/hub.yml")]
    command += [str(ROOT / "playbooks/verify.yml"), "-e", json.dumps({"verify_checks": ["jupyterhub"]})]
    done = subprocess.run(command, cwd=ROOT, env=site.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    (check,) = json.loads((site.path / "verify.json").read_text())["checks"][-1:]
    assert check["detail"]["output"].startswith("2 alice node"), shlex.quote(str(check))


def test_whoever_guesses_has_to_wait(authority):
    person = CLIENT.Person(URL, authority)
    answers = [person.log_in("nobody-here", f"guess {number}") for number in range(6)]
    assert answers == [403] * 5 + [429]
