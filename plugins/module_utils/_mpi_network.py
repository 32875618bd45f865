# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Latency and bandwidth between the nodes as MPI sees them: the program that measures, and what its figures say.

Pairs are measured in rounds, as in a tournament: in each round every node has one partner, so that time grows with the
number of nodes, not with its square. All pairs are measured up to ``ROUNDS`` + 1 nodes; with more, each node meets
``ROUNDS`` others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any
from xml.sax.saxutils import escape

__all__ = ["PING_PONG_C", "ROUNDS", "heat_map", "matrix_lines", "summarise"]

ROUNDS = 63
# A link is slow if it is that many times worse than the median.
SLOW = 3.0
TABLE_HOSTS = 16

PING_PONG_C = r"""
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

enum { TRIPS = 100, LARGE = 1 << 20, MOST = 20 };

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The time of a round trip of size bytes. */
static double trip(char *data, int size, int peer, int first)
{
    double start = MPI_Wtime();
    if (first) {
        MPI_Send(data, size, MPI_CHAR, peer, 0, MPI_COMM_WORLD);
        MPI_Recv(data, size, MPI_CHAR, peer, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    } else {
        MPI_Recv(data, size, MPI_CHAR, peer, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        MPI_Send(data, size, MPI_CHAR, peer, 0, MPI_COMM_WORLD);
    }
    return MPI_Wtime() - start;
}

int main(int argc, char **argv)
{
    int rank, size, length, rounds, even;
    char name[MPI_MAX_PROCESSOR_NAME] = "", *names = NULL, *data = calloc(1, LARGE);
    double times[TRIPS], found[3], *all = NULL;

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Get_processor_name(name, &length);
    if (rank == 0) {
        names = malloc((size_t)size * sizeof name);
        all = malloc((size_t)size * sizeof found);
    }
    MPI_Gather(name, sizeof name, MPI_CHAR, names, sizeof name, MPI_CHAR, 0, MPI_COMM_WORLD);
    for (int i = 0; rank == 0 && i < size; i++)
        printf("{\"rank\": %d, \"host\": \"%s\"}\n", i, names + (size_t)i * sizeof name);
    even = size + size % 2;
    rounds = argc > 1 && atoi(argv[1]) < even - 1 ? atoi(argv[1]) : even - 1;
    for (int round = 0; round < rounds; round++) {
        /* The circle method: the last one stays, the others go round. */
        int turn = even - 1, peer;
        if (rank == turn)
            peer = round;
        else if (rank == round)
            peer = turn;
        else
            peer = (2 * round - rank + 2 * turn) % turn;
        found[0] = -1;
        if (peer < size && peer != rank) {
            int first = rank < peer, count;
            for (int i = 0; i < 5; i++)
                trip(data, 1, peer, first);
            for (int i = 0; i < TRIPS; i++)
                times[i] = trip(data, 1, peer, first);
            qsort(times, TRIPS, sizeof *times, by_size);
            found[1] = times[TRIPS / 2] / 2;
            /* As many as fit into a fifth of a second, so that a link that is very slow holds up nobody for long. */
            count = (int)(0.2 / (16 * trip(data, LARGE / 16, peer, first) + 1e-9));
            count = count < 1 ? 1 : count > MOST ? MOST : count;
            if (first)
                MPI_Send(&count, 1, MPI_INT, peer, 1, MPI_COMM_WORLD);
            else
                MPI_Recv(&count, 1, MPI_INT, peer, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
            for (int i = 0; i < count; i++)
                times[i] = trip(data, LARGE, peer, first);
            qsort(times, count, sizeof *times, by_size);
            found[2] = 2.0 * LARGE / times[count / 2];
            if (first)
                found[0] = peer;
        }
        MPI_Gather(found, 3, MPI_DOUBLE, all, 3, MPI_DOUBLE, 0, MPI_COMM_WORLD);
        for (int i = 0; rank == 0 && i < size; i++)
            if (all[3 * i] >= 0)
                printf("{\"from\": %d, \"to\": %d, \"latency_us\": %.2f, \"bandwidth_mb_s\": %.1f}\n",
                       i, (int)all[3 * i], all[3 * i + 1] * 1e6, all[3 * i + 2] / 1e6);
    }
    MPI_Finalize();
    return 0;
}
"""


def records(output: str) -> list[dict[str, Any]]:
    """Return what the program printed as JSON, a record a line."""
    found = []
    for line in output.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            found.append(record)
    return found


def summarise(output: str) -> dict[str, Any]:
    """Return hosts, links, medians and slow links of what the program printed."""
    found = records(output)
    names = {record["rank"]: str(record["host"]).partition(".")[0] for record in found if "rank" in record}
    links: list[dict[str, Any]] = [
        {
            "hosts": [names.get(record["from"], "?"), names.get(record["to"], "?")],
            "latency_us": float(record["latency_us"]),
            "bandwidth_mb_s": float(record["bandwidth_mb_s"]),
        }
        for record in found
        if "latency_us" in record
    ]
    detail: dict[str, Any] = {"hosts": [names[rank] for rank in sorted(names)], "links": links}
    if links:
        latency = median(link["latency_us"] for link in links)
        bandwidth = median(link["bandwidth_mb_s"] for link in links)
        detail["median"] = {"latency_us": latency, "bandwidth_mb_s": bandwidth}
        detail["slow"] = [link["hosts"] for link in links if max(slowness(link, detail["median"]).values()) >= SLOW]
    return detail


def slowness(link: Mapping[str, Any], middle: Mapping[str, float]) -> dict[str, float]:
    """Return how many times worse than the median a link is."""
    return {
        "latency_us": link["latency_us"] / max(middle["latency_us"], 1e-9),
        "bandwidth_mb_s": middle["bandwidth_mb_s"] / max(link["bandwidth_mb_s"], 1e-9),
    }


# --- for people ------------------------------------------------------------------------------------------------------

TITLES = {"latency_us": "Latency in microseconds", "bandwidth_mb_s": "Bandwidth in MB/s"}


def matrix_lines(detail: Mapping[str, Any]) -> list[str]:
    """Return a table of each quantity, or the worst links where there are too many hosts for a table."""
    hosts, links = list(detail["hosts"]), list(detail.get("links") or [])
    if not links:
        return []
    if len(hosts) > TABLE_HOSTS:
        worst = sorted(links, key=lambda link: max(slowness(link, detail["median"]).values()), reverse=True)[:10]
        return ["The worst links:"] + [
            f"  {' - '.join(link['hosts'])}: {number(link['latency_us'])} us, {number(link['bandwidth_mb_s'])} MB/s"
            for link in worst
        ]
    lines = []
    for key, title in TITLES.items():
        cells = {frozenset(link["hosts"]): number(link[key]) for link in links}
        rows = [["", *hosts]]
        rows += [
            [one, *("-" if one == two else cells.get(frozenset((one, two)), "") for two in hosts)] for one in hosts
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(len(hosts) + 1)]
        lines += [f"{title}:"]
        lines += ["  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows]
    return lines


def number(value: float) -> str:
    """Return three digits of a figure."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def colour(times_worse: float) -> str:
    """Return the colour of a cell: pale is the median or better, dark is four times worse, which shows in grey, too."""
    share = min(1.0, max(0.0, math.log2(max(times_worse, 1e-9)) / 2))
    pale, dark = (255, 247, 220), (140, 10, 30)
    return "#" + "".join(f"{round(low + (high - low) * share):02x}" for low, high in zip(pale, dark))


def heat_map(detail: Mapping[str, Any], title: str = "") -> str:
    """Return an SVG picture: a square of hosts for each quantity, with a frame around what is slow."""
    hosts = list(detail["hosts"])
    side = max(4, min(48, 900 // max(1, len(hosts))))
    margin = 12 + (7 * max((len(host) for host in hosts), default=0) if side >= 10 else 0)
    square = side * len(hosts)
    width, height = margin + square + 24, 2 * (margin + square + 40) + 60
    place = {host: number * side for number, host in enumerate(hosts)}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{max(width, 420)}" height="{height}"'
        ' font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="12" y="24" font-size="16">{escape(title or "MPI between all nodes")}</text>',
    ]
    top = 48
    for key, heading in TITLES.items():
        parts.append(f'<text x="12" y="{top}">{heading}</text>')
        top += 12 + margin
        if side >= 10:
            for host, offset in place.items():
                middle = offset + side // 2 + 4
                parts.append(f'<text x="{margin - 6}" y="{top + middle}" text-anchor="end">{escape(host)}</text>')
                parts.append(
                    f'<text transform="translate({margin + middle},{top - 6}) rotate(-90)">{escape(host)}</text>'
                )
        parts.append(f'<rect x="{margin}" y="{top}" width="{square}" height="{square}" fill="#eeeeee"/>')
        for link in detail.get("links") or []:
            parts += cells(link, key, detail["median"], place, (margin, top, side))
        top += square + 36
    parts.append(f'<text x="12" y="{top}">Pale: the median or better. Dark: four times worse. Framed: slow.</text>')
    return "\n".join([*parts, "</svg>", ""])


def cells(
    link: Mapping[str, Any], key: str, middle: Mapping[str, float], place: Mapping[str, int], frame: Sequence[int]
) -> list[str]:
    """Return the two cells of a link."""
    left, top, side = frame
    worse = slowness(link, middle)[key]
    slow = worse >= SLOW
    border = ' stroke="black" stroke-width="2"' if slow else ' stroke="white" stroke-width="0.5"'
    one, two = link["hosts"]
    unit = "us" if key == "latency_us" else "MB/s"
    text = escape(f"{one} - {two}: {number(link[key])} {unit}, median {number(middle[key])}")
    drawn = []
    for column, row in ((one, two), (two, one)):
        if column in place and row in place:
            x, y = left + place[column], top + place[row]
            look = f'fill="{colour(worse)}"{border}><title>{text}</title>'
            # A frame lies inside of its cell: cells that are drawn later would hide half of it.
            inner = side - 2 * slow
            drawn.append(f'<rect x="{x + slow}" y="{y + slow}" width="{inner}" height="{inner}" {look}</rect>')
            if side >= 36:
                look = f'text-anchor="middle" fill="{"white" if worse >= 2 else "black"}"'
                drawn.append(f'<text x="{x + side // 2}" y="{y + side // 2 + 4}" {look}>{number(link[key])}</text>')
    return drawn
