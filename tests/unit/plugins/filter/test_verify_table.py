# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.turnkey.hpc.plugins.filter.verify_table import FilterModule

verify_table = FilterModule().filters()["verify_table"]


def check(name, ok, **detail):
    return {"name": name, "ok": ok, "seconds": 1.25, "detail": detail}


def test_a_table_has_aligned_columns_and_a_remark_a_check():
    ranks = [{"rank": 0, "host": "n1"}, {"rank": 1, "host": "n2"}]
    report = {
        "checks": [
            check("login", True, user="alice", host="head"),
            check("ssh_mesh", True, hosts=["head"], connections=2, failures=[]),
            check("shared_directory", True, hosts=["head", "n1"], path="/shared", failures=[]),
            check("mpi_hello", True, ranks=ranks, failures=[]),
            check("slurm_batch", True, job=17, state="COMPLETED", hosts=["n1", "n2"], failures=[]),
            check("slurm_accounting", True, job=18, state="COMPLETED", failures=[]),
        ]
    }
    assert verify_table(report) == [
        "check             result  seconds",
        "login             ok          1.2  alice at head",
        "ssh_mesh          ok          1.2  2 connections between 1 host",
        "shared_directory  ok          1.2  /shared on 2 hosts",
        "mpi_hello         ok          1.2  2 ranks on n1, n2",
        "slurm_batch       ok          1.2  job 17 COMPLETED on n1, n2",
        "slurm_accounting  ok          1.2  job 18 COMPLETED",
    ]


def test_failures_follow_below_the_table():
    report = {"checks": [check("ssh_mesh", False, hosts=["a"], connections=2, failures=["a: refused", "b: lost"])]}
    assert verify_table(report)[1:] == [
        "ssh_mesh  FAILED      1.2  2 connections between 1 host",
        "ssh_mesh: a: refused",
        "ssh_mesh: b: lost",
    ]


def test_many_hosts_do_not_make_an_endless_line():
    ranks = [{"rank": number, "host": f"n{number}"} for number in range(100)]
    assert verify_table({"checks": [check("mpi_hello", True, ranks=ranks)]})[1].endswith("n7 and 92 more")


def test_what_was_measured_between_nodes_is_a_line_in_the_table_and_a_table_below_it():
    links = [{"hosts": ["a", "b"], "latency_us": 2.5, "bandwidth_mb_s": 900.0}]
    median = {"latency_us": 2.5, "bandwidth_mb_s": 900.0}
    network = check("mpi_network", True, hosts=["a", "b"], links=links, median=median, slow=[["a", "b"]])
    lines = verify_table({"checks": [network]})
    assert lines[1].endswith("1 link, 2.5 us, 900 MB/s; slow: a - b")
    assert lines[2:5] == ["Latency in microseconds:", "       a    b", "  a    -  2.5"]
