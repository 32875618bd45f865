# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import contextlib
import json

PORT = 4711
TAKEN = json.dumps({"preflight_ports_free": [{"port": PORT, "service": "the test"}]})


def rows(output):
    """Return the problem in each row of the report's table, by hosts and check."""
    found = []
    for line in output.partition("HOSTS")[2].splitlines()[1:]:
        if not line.strip():
            break
        columns = [line[:24].strip(), line[24:36].strip(), line[36:80].strip()]
        if columns[1]:
            found.append(columns)
        else:
            found[-1] = [f"{old} {new}".strip() for old, new in zip(found[-1], columns)]
    return {(hosts, check): text for hosts, check, text in found}


@contextlib.contextmanager
def done_and_undone(node, do, undo):
    node.check_output(do)
    try:
        yield
    finally:
        node.check_output(undo)


def test_a_configured_cluster_has_no_problems(site):
    run = site.play("preflight").succeeded()
    assert "Preflight found" not in run.output
    assert not any(run.changed.values())


def test_whatever_is_wrong_on_any_node_is_in_one_report(site):
    node1, node2, node3 = (site.root(name) for name in ("node1", "node2", "node3"))
    serve = f"systemd-run --unit=in-the-way python3 -m http.server {PORT}"
    # Answers to node1 get lost, as behind a firewall. The control node comes through the head.
    address = node1.check_output("hostname -I").split()[0]
    problems = (
        (node1, serve, "systemctl stop in-the-way"),
        (node2, f"ip route add blackhole {address}", f"ip route del blackhole {address}"),
        (node3, "cp /etc/hosts /tmp/hosts; echo '192.0.2.7 node2' >>/etc/hosts", "cat /tmp/hosts >/etc/hosts"),
    )
    with contextlib.ExitStack() as stack:
        for problem in problems:
            stack.enter_context(done_and_undone(*problem))
        run = site.play("preflight", "--check", "-e", TAKEN, "-e", "preflight_min_cores=1000")
        limited = site.play("preflight", "--limit", "node3", "-e", '{"preflight_ignore": ["names"]}')
    assert run.code != 0
    assert not any(run.changed.values())
    found = rows(run.output)
    assert set(found) == {
        ("head, login1, node[1-3]", "cores"),
        ("node3", "names"),
        ("node1", "ports_free"),
        ("node1", "ports_open"),
        ("node2", "ports_open"),
    }, run.output
    assert found["node1", "ports_free"] == f"python3 of user root listens on port {PORT}/tcp (the test)"
    assert "no answer from node2" in found["node1", "ports_open"]
    # Where the route ends in nothing, it is known at once.
    assert "of node1" in found["node2", "ports_open"]
    assert "192.0.2.7" in found["node3", "names"]
    assert limited.code == 0, limited.output
    assert "Skipped because of preflight_ignore: names." in limited.output


def test_a_node_of_another_cluster_is_not_taken_over(site):
    other = {"cluster_name": "other", "domain": "other.internal", "authority_dir": "/does/not/exist"}
    run = site.play("preflight", "-e", json.dumps({f"preflight_{key}": value for key, value in other.items()}))
    assert run.code != 0
    assert set(rows(run.output)) == {("head, login1, node[1-3]", "leftovers")}
