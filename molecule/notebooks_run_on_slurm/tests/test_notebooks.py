# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What people with notebooks see of the cluster; the browser's part is in test_browser.py."""

import json
import shlex
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import notebook_check as client
import pytest
import requests

HEAD = "10.213.78.10"
URL, PLAIN = f"https://{HEAD}:8443", f"http://{HEAD}:8080"
CLUSTER = "molecule"
# For what takes seconds on a computer that does nothing else.
PATIENCE = 180
ENVIRONMENTS = "/opt/turnkey/jupyterhub"
# An older release, as far as the hub and its notebooks can tell: another place with the same packages.
OLDER = """
set -eu
cd /opt/turnkey/jupyterhub
now=$(readlink current)
python3 -m venv --without-pip older
echo "$PWD/$now/lib/$(ls $now/lib)/site-packages" >"$(echo older/lib/python3*/site-packages)/now.pth"
for program in $(grep -lI "^#!$PWD/$now" $now/bin/*); do
    sed "1s,/$now/,/older/," $program >older/bin/${program##*/}
    chmod 755 older/bin/${program##*/}
done
mkdir older/share
cp -r $now/share/turnkey older/share/
ln -s $PWD/$now/share/jupyter $PWD/$now/share/jupyterhub older/share/
ln -s $PWD/$now/etc older/etc
touch older/.complete
ln -sfn older current
"""
# Runs the cells of an example, one after the other.
EXAMPLE = """
import json
for cell in json.load(open({name!r}))["cells"]:
    if cell["cell_type"] == "code":
        get_ipython().run_cell("".join(cell["source"])).raise_error()
"""


@pytest.fixture
def hub(hubs):
    """Return the hub whose notebooks are jobs."""
    return hubs.site.root("head")


@pytest.fixture
def other(hubs):
    """Return the hub whose notebooks are processes of its host."""
    return hubs.site.root("login1")


@pytest.fixture
def authority(hubs):
    return str(hubs.site.path / ".secrets/tls_ca/ca.crt")


@pytest.fixture
def enter(hub, authority):
    """Return what logs somebody in with a one-time password. Servers that are still there at the end are stopped."""
    people = []

    def make(name, url=URL, host=None):
        password = (host or hub).check_output("su - %s -c jupyterhub-password", name).strip()
        person = client.Person(url, authority)
        assert person.log_in(name, password) == 302
        people.append(person)
        return person

    yield make
    for person in people:
        for server in person.servers():
            person.stop(server, PATIENCE)


def jobs(hub):
    """Return the notebooks that Slurm runs: number of the job and of its nodes, by user and server."""
    lines = hub.check_output("squeue --noheader --states=RUNNING --format='%u %j %i %D'").splitlines()
    fields = [line.replace(" notebook-", " ").split() for line in lines if " notebook-" in line]
    return {f"{user} {server}": (job, int(nodes)) for user, server, job, nodes in fields}


def fill(hub, nodes=3):
    """Submit a job of bob that takes whole nodes until it is cancelled; return its number."""
    submit = "su - bob -c 'sbatch --parsable --exclusive --output=/dev/null --nodes=%s --wrap=\"tail -f /dev/null\"'"
    return hub.check_output(submit, str(nodes)).strip()


def until(holds, seconds=PATIENCE, what="it"):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.5)  # poll interval


def hub_answers(authority, url=URL):
    def holds():
        try:
            return requests.get(f"{url}/hub/health", verify=authority, timeout=5).status_code == 200
        except requests.RequestException:
            return False

    until(holds, what="the hub answers")


def kill(hub, unit):
    """Kill a daemon, and wait until systemd has started another one."""
    before = hub.check_output("systemctl show --property=MainPID --value %s", unit)
    hub.check_output("systemctl kill --signal=KILL --kill-who=main %s", unit)

    def again():
        now = hub.check_output("systemctl show --property=MainPID --value %s", unit)
        return now not in ("0", before) and hub.service(unit).is_running

    until(again, what=f"{unit} runs again")


def docker(*arguments):
    subprocess.run(["docker", *arguments], check=True, capture_output=True)


def restart(hub, authority):
    hub.check_output("systemctl restart jupyterhub")
    hub_answers(authority)


def test_a_check_says_what_would_change_and_changes_nothing(hubs):
    assert hubs.dry.changed["head"]
    assert hubs.dry.changed["login1"]
    assert not hubs.traces


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
    person = client.Person(URL, authority)
    assert person.log_in("bob", password) == 403
    assert person.log_in("alice", password) == 302
    assert client.Person(URL, authority).log_in("alice", password) == 403
    hub.check_output("cp -p /etc/shadow /run/kept && useradd mallory && echo mallory:Correct-Horse-1 | chpasswd")
    hub.check_output("echo bob:Correct-Horse-2 | chpasswd")
    try:
        assert client.Person(URL, authority).log_in("mallory", "Correct-Horse-1") == 403
        assert client.Person(URL, authority).log_in("bob", "Correct-Horse-1") == 403
        assert client.Person(URL, authority).log_in("bob", "Correct-Horse-2") == 302
    finally:
        hub.check_output("userdel mallory && mv /run/kept /etc/shadow")


def test_two_users_compute_at_once_also_over_three_nodes_and_apart(hub, enter):
    alice, bob = enter("alice"), enter("bob")
    with pytest.raises(client.Refused, match="400"):
        alice.start(nodes=99)
    alice.start(nodes=3)
    bob.start()
    bob.start("second")
    with pytest.raises(client.Refused, match="400"):
        bob.start("third")
    with ThreadPoolExecutor() as pool:
        servers = [(alice, ""), (bob, ""), (bob, "second")]
        list(pool.map(lambda server: server[0].wait_until_ready(PATIENCE, server[1]), servers))
        cells = (
            pool.submit(alice.run, EXAMPLE.format(name="mpi-on-several-nodes.ipynb")),
            pool.submit(bob.run, EXAMPLE.format(name="first-steps.ipynb")),
        )
        mpi, steps = (cell.result().splitlines() for cell in cells)
    assert [line.split("] ", 1)[1] for line in mpi if line.startswith("[stdout")] == [
        "hosts: ['node1', 'node2', 'node3'] sum of ranks: 3",
        "sum: 6",
    ]
    running = jobs(hub)
    assert {name: nodes for name, (_job, nodes) in running.items()} == {
        "alice default": 3,
        "bob default": 1,
        "bob second": 1,
    }
    assert steps[0] == "2"
    assert steps[1].split() == ["bob", "on", steps[1].split()[2], "in", "job", running["bob default"][0]]
    # Slurm holds it to what the form said.
    assert steps[2] == "1 cores, 500 MB"
    assert bob.run(server="second").split()[::3] == ["2", running["bob second"][0]]
    # Each sees the own servers only, and an administrator those of all.
    assert bob.session.get(f"{URL}/user/alice/lab", timeout=20).status_code in (403, 404)
    assert bob.session.get(f"{URL}/user/alice/api/contents", timeout=20).status_code in (403, 404)
    assert bob.ask("GET", "/hub/api/users").status_code == 403
    assert {user["name"] for user in alice.ask("GET", "/hub/api/users").json()} >= {"alice", "bob"}
    alice.stop(seconds=PATIENCE)
    bob.stop("second", PATIENCE)
    until(lambda: set(jobs(hub)) == {"bob default"}, what="stopping cancels the jobs")
    assert bob.run("print(open('README.md').readline())").startswith("# Welcome")


def test_a_notebook_outlives_hub_proxy_controller_and_a_run_of_the_playbook(hubs, hub, authority, enter):
    bob = enter("bob")
    bob.start()
    bob.wait_until_ready(PATIENCE)
    before = bob.run()
    for unit in ("jupyterhub", "jupyterhub-proxy", "slurmctld"):
        kill(hub, unit)
    hub_answers(authority)
    until(lambda: bob.open_lab() == 200, what="the proxy knows the server again")
    assert bob.run() == before
    again = hubs.play("jupyterhub").succeeded()
    assert not any(again.changed.values()), again.output
    assert bob.run() == before


@pytest.mark.minutes
def test_a_notebook_outlives_a_run_of_the_whole_site_and_its_user_a_lost_node(hubs, hub, enter):
    bob = enter("bob")
    bob.start()
    bob.wait_until_ready(PATIENCE)
    before = bob.run()
    again = hubs.play("site").succeeded()
    assert not any(again.changed.values()), again.output
    dry = hubs.play("jupyterhub", "--check", "--diff", "--limit", "head,login1").succeeded()
    assert not any(dry.changed.values()), dry.output
    assert bob.run() == before
    # Slurm is away: the notebook isn't.
    hub.check_output("systemctl stop slurmctld")
    try:
        assert bob.run().split()[0] == "2"
    finally:
        hub.check_output("systemctl start slurmctld")
    # A node is lost, and Slurm knows: its user is told, and starts again elsewhere.
    node = before.split()[2]
    docker("kill", f"{CLUSTER}-{node}")
    try:
        hub.check_output("scontrol update nodename=%s state=down reason=lost", node)
        until(lambda: not bob.server(), what="the hub notices")
        bob.start()
        bob.wait_until_ready(PATIENCE)
        number, name, other_node, _job = bob.run().split()
        assert (number, name) == ("2", "bob")
        assert other_node != node
    finally:
        docker("start", f"{CLUSTER}-{node}")
        # Its slurmd may have reported for work already.
        hub.run("scontrol update nodename=%s state=resume", node)
    idle = "sinfo --noheader --format=%%t --nodes=%s"
    until(lambda: hub.check_output(idle, node).strip() in ("idle", "mix"), what="the node is back")


@pytest.mark.minutes
def test_who_waits_in_the_queue_reads_at_which_place_and_why(hub, enter):
    alice = enter("alice")
    fill(hub)
    waiting = fill(hub, nodes=2)
    seen = []
    try:
        alice.start()
        for page in alice.messages():
            if "waits in partition main, place 2 of 2: others are before it (Priority)" in page:
                seen.append("second")
                hub.check_output("scancel %s", waiting)
            if "waits in partition main: the nodes are busy (Resources)" in page:
                seen.append("next")
                hub.check_output("scancel --user=bob")
            if "runs on node" in page:
                seen.append("runs")
    finally:
        hub.run("scancel --user=bob")
    assert list(dict.fromkeys(seen)) == ["second", "next", "runs"]
    alice.wait_until_ready(PATIENCE)


@pytest.mark.minutes
def test_a_hub_that_is_killed_while_a_notebook_waits_leaves_no_job_that_nobody_knows(hub, authority, enter):
    alice = enter("alice")
    fill(hub)
    try:
        alice.start()
        assert hub.check_output("squeue --noheader --user=alice")
        kill(hub, "jupyterhub")
        hub_answers(authority)
        until(lambda: not hub.check_output("squeue --noheader --user=alice"), 300, "the hub cancels it")
    finally:
        hub.run("scancel --user=bob")
    until(lambda: not alice.server(), what="the hub has forgotten it")
    alice.start()
    alice.wait_until_ready(PATIENCE)


@pytest.mark.minutes
def test_a_notebook_that_nobody_uses_is_stopped_and_its_job_ends(hub, authority, enter):
    settings, kept = "/etc/jupyterhub/settings.json", "/run/kept.json"
    bob = enter("bob")
    bob.start()
    bob.wait_until_ready(PATIENCE)
    # With its time stamp, by which the playbook tells whether the hub has to be restarted.
    hub.check_output(f'cp -p {settings} {kept} && sed -i \'s/"idle_minutes": 30.0/"idle_minutes": 0.1/\' {settings}')
    try:
        restart(hub, authority)
        until(lambda: not bob.server(), what="the culler stops it")
        until(lambda: not jobs(hub), what="its job ends")
    finally:
        hub.check_output(f"mv {kept} {settings}")
        restart(hub, authority)


@pytest.mark.minutes
def test_an_upgrade_and_the_way_back_keep_notebooks_and_leave_a_backup(hubs, hub, authority, enter):
    nodes = [hubs.site.root(name) for name in ("head", "login1", "node1", "node2", "node3")]
    release = hub.check_output(f"readlink {ENVIRONMENTS}/current")
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda node: node.check_output(OLDER), nodes))
    restart(hub, authority)
    bob = enter("bob")
    bob.start()
    bob.wait_until_ready(PATIENCE)
    where = "import sys; print(sys.prefix)"
    assert bob.run(where).strip() == f"{ENVIRONMENTS}/older"
    for playbook, now, before in (("jupyterhub", release, "older"), ("rollback_jupyterhub", "older", release)):
        hubs.play(playbook).succeeded()
        for node in nodes:
            assert node.check_output(f"readlink {ENVIRONMENTS}/current {ENVIRONMENTS}/previous").split() == [
                now,
                before,
            ]
        assert hub.check_output("cat /var/lib/jupyterhub/release") == now
        assert hub.file(f"/var/lib/jupyterhub/backups/{before}.sqlite").mode == 0o600
        # The session and the server are those from before.
        assert bob.run(where).strip() == f"{ENVIRONMENTS}/older"
    hubs.play("jupyterhub").succeeded()
    with ThreadPoolExecutor() as pool:
        clean = f"rm -r {ENVIRONMENTS}/older {ENVIRONMENTS}/previous"
        list(pool.map(lambda node: node.check_output(clean), nodes))


@pytest.mark.minutes
def test_the_other_hub_runs_notebooks_on_its_own_host_for_its_users_and_groups(hubs, other, authority, enter):
    url = f"https://{other.check_output('hostname -I').split()[0]}"
    assert "Maintenance on Friday" in requests.get(url, verify=authority, timeout=10).text
    alice = enter("alice", url, other)
    alice.start()
    alice.wait_until_ready(PATIENCE)
    assert alice.run().split() == ["2", "alice", "login1", "-"]
    unit = other.check_output("systemctl list-units --plain --no-legend 'jupyter-*'").split()[0]
    limits = other.check_output("systemctl show --property=MemoryMax,CPUQuotaPerSecUSec,User %s", unit)
    assert set(limits.splitlines()) >= {"MemoryMax=419430400", "CPUQuotaPerSecUSec=1s"}
    assert alice.run("import os; print(os.getcwd())").strip() == "/shared/alice"
    # One at once is what this hub allows, and bob isn't in the group yet.
    bob = client.Person(url, authority)
    letter = "su - bob -c jupyterhub-password"
    assert bob.log_in("bob", other.check_output(letter).strip()) == 403
    other.check_output("groupadd notebooks && usermod --append --groups notebooks bob")
    try:
        assert bob.log_in("bob", other.check_output(letter).strip()) == 302
        with pytest.raises(client.Refused, match="429"):
            bob.start()
    finally:
        other.check_output("groupdel notebooks")
    kill(other, "jupyterhub")
    hub_answers(authority, url)
    until(lambda: alice.server().get("ready"), what="the hub knows the server again")
    assert alice.run().split()[:3] == ["2", "alice", "login1"]


@pytest.mark.minutes
def test_a_site_brings_its_own_certificate_and_its_own_way_to_log_in(hubs, other, authority, tmp_path):
    address = other.check_output("hostname -I").split()[0]
    url, own = f"https://{address}", tmp_path / "own.crt"
    certify = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    certify += ["-subj", "/CN=own", "-addext", f"subjectAltName=IP:{address}"]
    certify += ["-keyout", str(own.with_suffix(".key")), "-out", str(own)]
    subprocess.run(certify, check=True, capture_output=True)
    asked = {
        "jupyterhub_tls_certificate": str(own),
        "jupyterhub_tls_key": str(own.with_suffix(".key")),
        "jupyterhub_config_file": "../notebooks/single_sign_on.py",
    }
    hubs.play("jupyterhub", "--limit", "login1", "-e", json.dumps(asked)).succeeded()
    hub_answers(str(own), url)
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(url, verify=authority, timeout=10)
    assert other.file("/etc/jupyterhub/given.key").mode == 0o640
    login = requests.get(f"{url}/hub/oauth_login", verify=str(own), allow_redirects=False, timeout=10)
    assert login.status_code == 302
    assert login.headers["Location"].startswith("https://login.example.org/authorize?")
    assert quote(f"{url}/hub/oauth_callback", safe="") in login.headers["Location"]
    hubs.play("jupyterhub", "--limit", "login1").succeeded()
    hub_answers(authority, url)
    assert not other.file("/etc/jupyterhub/given.key").exists


@pytest.mark.minutes
def test_a_configuration_that_would_open_the_hub_is_refused_and_the_one_in_use_stays(hubs, other, authority):
    before = other.check_output("sha256sum /etc/jupyterhub/site_config.py")
    asked = ["-e", "jupyterhub_config_file=../notebooks/open_to_all.py", "--limit", "login1"]
    run = hubs.play("jupyterhub", *asked)
    assert run.code != 0
    assert "takes any password" in run.output
    assert "Did you mean start_timeout?" in run.output
    assert other.check_output("sha256sum /etc/jupyterhub/site_config.py") == before
    assert other.service("jupyterhub").is_running


@pytest.mark.minutes
def test_verify_logs_in_and_runs_a_cell(hubs):
    hubs.play("verify", "-e", json.dumps({"verify_checks": ["jupyterhub"]})).succeeded()
    checks = {check["name"]: check for check in json.loads((hubs.site.path / "verify.json").read_text())["checks"]}
    check = checks["jupyterhub"]
    assert check["detail"]["output"].startswith("2 alice node"), shlex.quote(str(check))


def test_whoever_guesses_has_to_wait(hub, authority):
    person = client.Person(URL, authority)
    answers = [person.log_in("nobody-here", f"guess {number}") for number in range(6)]
    assert answers == [403] * 5 + [429]
    # The next test is at the same address.
    restart(hub, authority)


def test_a_reset_leaves_the_hosts_as_they_were_and_what_users_made(hubs, hub, authority):
    bob = client.Person(URL, authority)
    assert bob.log_in("bob", hub.check_output("su - bob -c jupyterhub-password").strip()) == 302
    bob.start()
    bob.wait_until_ready(PATIENCE)
    hubs.play("reset_jupyterhub").succeeded()
    assert not jobs(hub), "a reset ends the notebooks"
    assert hub.file("/shared/bob/README.md").exists
    for node, after in hubs.pictures().items():
        before = hubs.before[node]
        assert not after - before, f"{node} has what it had not before:\n" + "\n".join(sorted(after - before))
        assert not before - after, f"{node} lost what it had before:\n" + "\n".join(sorted(before - after))
    again = hubs.play("reset_jupyterhub").succeeded()
    assert not any(again.changed.values()), again.output
