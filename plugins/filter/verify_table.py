# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter that makes a table for people out of a report of role verify."""

from __future__ import annotations

DOCUMENTATION = r"""
name: verify_table
short_description: Show a report of cluster checks as a table
version_added: "0.1.0"
author: The turnkey.hpc founders (@turnkey-hpc)
description:
  - Returns the lines of a table with a row a check.
    Below it is what was measured between the nodes, and what is wrong.
options:
  _input:
    description: A report as P(turnkey.hpc.verify_report#filter) makes it.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the report
  ansible.builtin.debug:
    msg: "{{ report | turnkey.hpc.verify_table }}"
"""

RETURN = r"""
_value:
  description: Lines of text.
  type: list
  elements: str
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.turnkey.hpc.plugins.module_utils._mpi_network import matrix_lines


def verify_table(report: Mapping[str, Any]) -> list[str]:
    """Return the lines that show ``report``."""
    rows = [("check", "result", "seconds", "")]
    rows += [
        (check["name"], "ok" if check["ok"] else "FAILED", f"{check['seconds']:.1f}", remark(check["detail"]))
        for check in report["checks"]
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = []
    for name, result, seconds, note in rows:
        lines.append(f"{name:{widths[0]}}  {result:{widths[1]}}  {seconds:>{widths[2]}}  {note}".rstrip())
    for check in report["checks"]:
        lines += matrix_lines(check["detail"]) if check["detail"].get("links") else []
    for check in report["checks"]:
        lines += [f"{check['name']}: {failure}" for failure in check["detail"].get("failures", [])]
    return lines


def remark(detail: Mapping[str, Any]) -> str:
    """Return in a few words what a check saw."""
    if detail.get("links"):
        latency, bandwidth = detail["median"]["latency_us"], detail["median"]["bandwidth_mb_s"]
        slow = ", ".join(f"{one} - {two}" for one, two in detail["slow"][:5]) or "none"
        return f"{count(len(detail['links']), 'link')}, {latency:.3g} us, {bandwidth:.0f} MB/s; slow: {slow}"
    if detail.get("ranks"):
        hosts = list(dict.fromkeys(rank["host"] for rank in detail["ranks"]))
        return f"{count(len(detail['ranks']), 'rank')} on {shorten(hosts)}"
    if "job" in detail:
        where = f" on {shorten(detail['hosts'])}" if detail.get("hosts") else ""
        return f"job {detail['job']} {detail['state']}{where}"
    if "connections" in detail:
        return f"{count(detail['connections'], 'connection')} between {count(len(detail['hosts']), 'host')}"
    if "path" in detail:
        return f"{detail['path']} on {count(len(detail['hosts']), 'host')}"
    if "user" in detail:
        return f"{detail['user']} at {detail['host']}"
    return ""


def count(number: int, noun: str) -> str:
    """Return ``number`` with its noun in the right form."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def shorten(names: list[str], most: int = 8) -> str:
    """Return ``names`` in one line of bearable length."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter under its name."""
        return {"verify_table": verify_table}
