# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter that makes the report of role verify out of task results."""

from __future__ import annotations

DOCUMENTATION = r"""
name: verify_report
short_description: Make a report out of the results of cluster checks
version_added: "0.1.0"
author: The turnkey.hpc founders (@turnkey-hpc)
description:
  - Takes the results of the tasks that led to a login and of M(turnkey.hpc.cluster_checks).
  - The first check of the report is C(login).
    It has failed, with the reason, if one of the tasks failed or the host could not be reached.
options:
  _input:
    description: Registered results, in the order of the tasks. The last one is that of M(turnkey.hpc.cluster_checks).
    type: list
    elements: dict
    required: true
  cluster:
    description: Name of the cluster.
    type: str
    required: true
  time:
    description: When the checks ran.
    type: str
    required: true
  user:
    description: Who was to log in.
    type: str
    required: true
  host:
    description: Where to.
    type: str
    required: true
  seconds:
    description: How long all of it took. What the checks did not take counts as the login's time.
    type: float
    default: 0
"""

EXAMPLES = r"""
- name: Make the report
  ansible.builtin.set_fact:
    report: "{{ [proof] | turnkey.hpc.verify_report('lab', now() | string, user='alice', host='head') }}"
"""

RETURN = r"""
_value:
  description: The report with C(cluster), C(time), C(ok) and C(checks).
  type: dict
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any


def reason(result: Mapping[str, Any]) -> str:
    """Return in one text why a task failed."""
    parts = [str(result.get(key) or "").strip() for key in ("msg", "module_stderr")]
    return "\n".join(part for part in parts if part) or "the task failed and said nothing"


def verify_report(
    results: Sequence[Mapping[str, Any]], cluster: str, time: str, user: str, host: str, seconds: float = 0.0
) -> dict[str, Any]:
    """Return the report for ``results``."""
    proof = results[-1] if results else {}
    login: dict[str, Any] = {"user": user, "host": host}
    checks = list(proof.get("checks") or [])
    if proof.get("skipped"):
        login["skipped"] = "check mode"
    elif "checks" not in proof:
        broken = [result for result in results if result.get("failed") or result.get("unreachable")] or [proof]
        login["failures"] = [reason(broken[0])]
    left = round(max(0.0, float(seconds) - sum(check["seconds"] for check in checks)), 2)
    entry = {"name": "login", "ok": "failures" not in login, "seconds": left, "detail": login}
    report = [entry, *checks]
    return {"cluster": cluster, "time": time, "ok": all(check["ok"] for check in report), "checks": report}


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter under its name."""
        return {"verify_report": verify_report}
