# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Report over all hosts what preflight found; documented with the module of the same name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._preflight import (
    Problem,
    build_report,
    find_shared_problems,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._preflight_network import (
    Seen,
    find_problems_between,
    node_address,
)

OPTIONS: dict[str, dict[str, Any]] = {
    "hosts": {"type": "list", "elements": "str", "required": True},
    "variable": {"type": "str", "required": True},
    "domain": {"type": "str", "default": ""},
    "ignore": {"type": "list", "elements": "str", "default": []},
}


def collect(
    hosts: list[str], variable: str, hostvars: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, list[Problem]], dict[str, Seen]]:
    """Return the problems of each host, and what others need to know of it, as ``turnkey.hpc.preflight`` found it."""
    problems: dict[str, list[Problem]] = {}
    seen: dict[str, Seen] = {}
    for host in hosts:
        result = hostvars[host].get(variable)
        if not result or "problems" not in result:
            problems[host] = [Problem("survey", "preflight has no result", "see the error above")]
            seen[host] = Seen("", lost=True)
            continue
        problems[host] = [Problem(**problem) for problem in result["problems"]]
        survey = result.get("survey") or {}
        interfaces = survey.get("interfaces") or {}
        seen[host] = Seen(
            address=str(result["address"]),
            own_addresses=frozenset(own.partition("/")[0] for owns in interfaces.values() for own in owns)
            - {"127.0.0.1"},
            lost=any(problem.id in ("reachable", "address") for problem in problems[host]),
            listeners=survey.get("listeners") or [],
            probes=result.get("probes") or [],
            resolved=survey.get("resolved") or {},
            hosts_file=survey.get("hosts_file") or [],
        )
    return problems, seen


class ActionModule(ActionBase):
    """Fail with one report, or say what was skipped, or say nothing."""

    _supports_check_mode = True
    _requires_connection = False
    TRANSFERS_FILES = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Read the results of all hosts, once."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(OPTIONS)
        variables = task_vars or {}
        hostvars = variables["hostvars"]
        problems, seen = collect(options["hosts"], options["variable"], hostvars)
        between = find_problems_between(
            seen,
            (variables.get("groups") or {}).get("all") or options["hosts"],
            options["domain"],
            lambda name: node_address(hostvars[name]),
        )
        shared = find_shared_problems({host: each.address for host, each in seen.items()})
        for found in (shared, between):
            for host, more in found.items():
                problems[host] += more
        try:
            report = build_report(problems, options["ignore"])
        except HpcError as error:
            raise AnsibleActionFail(str(error)) from error
        if report.failed:
            # As the task's message it would be shown twice, and in JSON on one line.
            self._display.display(f"\n{report.text}\n", stderr=True)
            raise AnsibleActionFail(report.text.partition("\n")[0])
        result["changed"] = False
        if report.text:
            self._display.display(f"\n{report.text}\n")
        return result
