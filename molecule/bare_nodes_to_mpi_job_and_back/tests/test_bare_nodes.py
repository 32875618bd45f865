# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import json

import jmespath

NODES = ("head", "node1")


def test_bare_nodes_run_an_mpi_job_and_are_left_as_they_were(make_site):
    bare_site = make_site("bare")
    before = {node: bare_site.picture(node) for node in NODES}

    dry = bare_site.play("site", "--check", "--diff").succeeded()
    assert all(dry.changed[node] for node in NODES)
    assert {node: bare_site.picture(node) for node in NODES} == before

    bare_site.play("site").succeeded()
    bare_site.play("verify").succeeded()
    report = json.loads((bare_site.path / "verify.json").read_text())
    assert sorted(jmespath.search("checks[?name=='mpi_hello'] | [0].detail.ranks[].host", report)) == list(NODES)

    bare_site.root("node1").check_output("su - alice -c 'echo precious >diary'")
    bare_site.play("reset").succeeded()
    assert bare_site.root("node1").check_output("cat /home/alice/diary") == "precious", "user data stays"
    again = bare_site.play("reset").succeeded()
    assert not any(again.changed.values()), again.output

    for node in NODES:
        after = {line for line in bare_site.picture(node) if "/home/alice" not in line}
        assert not after - before[node], f"{node} has what it had not before:\n" + "\n".join(
            sorted(after - before[node])
        )
        assert not before[node] - after, f"{node} lost what it had before:\n" + "\n".join(sorted(before[node] - after))
