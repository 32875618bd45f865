# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from itertools import combinations
from xml.etree import ElementTree

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils import _mpi_network as network

HOSTS = ("head", "node1", "node2", "node3")


def measured(hosts=HOSTS, slow=()):
    """Return what the program prints for hosts of which some pairs have a slow link."""
    lines = [f'{{"rank": {rank}, "host": "{host}.lab"}}' for rank, host in enumerate(hosts)]
    for one, two in combinations(range(len(hosts)), 2):
        latency, bandwidth = (50.0, 10.0) if (hosts[one], hosts[two]) in slow else (5.0, 1000.0)
        lines.append(f'{{"from": {one}, "to": {two}, "latency_us": {latency}, "bandwidth_mb_s": {bandwidth}}}')
    return "srun: job 7 queued\n" + "\n".join(lines) + "\n[1, 2]\n"


def test_links_medians_and_slow_links_are_read_from_the_output():
    detail = network.summarise(measured(slow=[("node1", "node3")]))
    assert detail["hosts"] == list(HOSTS)
    assert len(detail["links"]) == 6
    assert detail["median"] == {"latency_us": 5.0, "bandwidth_mb_s": 1000.0}
    assert detail["slow"] == [["node1", "node3"]]


def test_no_output_is_no_link():
    assert network.summarise("") == {"hosts": [], "links": []}
    assert network.matrix_lines(network.summarise("")) == []


def test_a_table_shows_each_pair_on_both_sides():
    lines = network.matrix_lines(network.summarise(measured(slow=[("node1", "node3")])))
    assert lines[:3] == [
        "Latency in microseconds:",
        "         head  node1  node2  node3",
        "   head     -      5      5      5",
    ]
    assert lines[3].split() == ["node1", "5", "-", "5", "50"]
    assert lines[5].split() == ["node3", "5", "50", "5", "-"]
    assert lines[8].split() == ["head", "-", "1000", "1000", "1000"]


def test_of_many_hosts_the_worst_links_are_listed():
    hosts = [f"n{number}" for number in range(20)]
    lines = network.matrix_lines(network.summarise(measured(hosts, slow=[("n3", "n17")])))
    assert len(lines) == 11
    assert lines[1] == "  n3 - n17: 50 us, 10 MB/s"


def rectangles(picture):
    tree = ElementTree.fromstring(picture)
    name = "{http://www.w3.org/2000/svg}"
    return {
        cell.find(f"{name}title").text: cell.attrib
        for cell in tree.iter(f"{name}rect")
        if cell.find(f"{name}title") is not None
    }


def test_a_slow_link_is_dark_and_framed_in_the_picture_and_the_others_are_pale():
    cells = rectangles(network.heat_map(network.summarise(measured(slow=[("node1", "node3")])), "lab"))
    assert len(cells) == 12
    slow = {text: look for text, look in cells.items() if "node1 - node3" in text}
    assert {look["fill"] for look in slow.values()} == {"#8c0a1e"}
    assert {look["stroke"] for look in slow.values()} == {"black"}
    assert {look["fill"] for text, look in cells.items() if text not in slow} == {"#fff7dc"}


@pytest.mark.parametrize("count", [2, 64, 200])
def test_the_picture_is_well_formed_and_of_bearable_size_for_any_number_of_hosts(count):
    hosts = [f"n{number}<&" for number in range(count)]
    links = [{"hosts": [hosts[0], host], "latency_us": 1.0, "bandwidth_mb_s": 1.0} for host in hosts[1:]]
    detail = {"hosts": hosts, "links": links, "median": {"latency_us": 1.0, "bandwidth_mb_s": 1.0}}
    picture = network.heat_map(detail)
    assert len(rectangles(picture)) == 2 * (count - 1)
    assert float(ElementTree.fromstring(picture).attrib["width"]) < 1600


@pytest.mark.parametrize(("worse", "colour"), [(0.1, "#fff7dc"), (1, "#fff7dc"), (4, "#8c0a1e"), (100, "#8c0a1e")])
def test_colours_go_from_the_median_to_four_times_worse(worse, colour):
    assert network.colour(worse) == colour
