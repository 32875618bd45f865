# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at a host and return what would go wrong on it as data; documented with the module of the same name."""

from __future__ import annotations

import shlex
import time
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.turnkey.hpc.plugins.module_utils._preflight import (
    Problem,
    Requirements,
    clock_skew,
    explain_connection_error,
    explain_module_failure,
    find_problems,
    judge_sudo,
    wanted_accounts,
)

OPTIONS: dict[str, dict[str, Any]] = {
    "supported_releases": {"type": "list", "elements": "str", "required": True},
    "min_python": {"type": "str", "default": "3.9"},
    "min_cores": {"type": "int", "default": 1},
    "min_memory_mb": {"type": "int", "default": 0},
    "min_disk_gb": {"type": "float", "default": 0},
    "max_clock_skew_seconds": {"type": "float", "default": 5},
    "network": {"type": "str", "required": True},
    "address": {"type": "str", "default": ""},
    "interface": {"type": "str", "default": ""},
    "users": {"type": "list", "elements": "dict", "default": []},
}
PATHS = ["/", "/var"]
SUDO_METHODS = ("sudo", "ansible.builtin.sudo")
SUDO_PASSWORDS = ("ansible_become_password", "ansible_become_pass", "ansible_sudo_pass")


class ActionModule(ActionBase):
    """Run the survey on the host, and turn whatever happens into a list of problems."""

    _supports_check_mode = True
    TRANSFERS_FILES = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return ``problems``; fail on wrong options only."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        _validation, options = self.validate_argument_spec(OPTIONS)
        users = options.pop("users")
        requirements = Requirements(**options)
        survey: dict[str, Any] = {}
        try:
            survey, problems = self._survey(wanted_accounts(users), requirements.min_python, variables, result)
            if survey:
                survey.update(self._sudo(survey, variables))
                problems = find_problems(survey, requirements)
        except AnsibleConnectionFailure as error:
            # Not raised on: Ansible would drop the host, and the report would miss it.
            problems = [explain_connection_error(str(error))]
        except AnsibleError as error:
            reason = " ".join(str(error).split())[:300]
            problems = [Problem("survey", f"the survey failed: {reason}", "run with -vvv to see more")]
        result.update(
            changed=False,
            address=requirements.address,
            survey=survey,
            problems=[problem.as_dict() for problem in problems],
        )
        return result

    def _survey(
        self, accounts: list[dict[str, Any]], min_python: str, variables: dict[str, Any], result: dict[str, Any]
    ) -> tuple[dict[str, Any], list[Problem]]:
        """Return the host's survey, or why there is none."""
        # An inventory may set ansible_become, which outdoes the task's own become.
        self._connection.set_become_plugin(None)
        if getattr(self._connection, "has_pipelining", False):
            # Without it the module's code goes through a temporary directory, and a directory of the user's own stays.
            self._connection.set_option("pipelining", True)
        started = time.time()
        answer = self._execute_module(
            module_name="turnkey.hpc.host_survey",
            module_args={"paths": PATHS, "users": accounts},
            task_vars=variables,
            wrap_async=False,
        )
        ended = time.time()
        if answer.get("ansible_facts"):
            # Which Python was found: later tasks need not look for it again.
            result["ansible_facts"] = answer["ansible_facts"]
        if not answer.get("failed") and "survey" in answer:
            survey = dict(answer["survey"])
            survey["clock_skew"] = clock_skew(started, ended, survey["clock"], survey["seconds"])
            return survey, []
        message = "\n".join(str(answer.get(key) or "") for key in ("msg", "module_stderr", "module_stdout"))
        interpreter = str(self._used_interpreter or "/usr/bin/python3").removeprefix("#!")
        probe = self._low_level_execute_command(f"{shlex.quote(interpreter)} --version", sudoable=False)
        return {}, [explain_module_failure(message, interpreter, probe.get("stdout", ""), min_python)]

    def _sudo(self, survey: dict[str, Any], variables: dict[str, Any]) -> dict[str, str]:
        """Try sudo as later plays will use it. ``-k`` with a command neither uses nor changes what sudo remembers."""
        method = self._variable("ansible_become_method", variables) or self._play_context.become_method or "sudo"
        if survey["user"]["uid"] == 0 or method not in SUDO_METHODS:
            return {"sudo": "ok"}
        password = next(filter(None, (self._variable(name, variables) for name in SUDO_PASSWORDS)), "")
        password = password or self._play_context.become_pass or ""
        sudo = shlex.quote(self._variable("ansible_become_exe", variables) or "sudo")
        ask = "-S -p ''" if password else "-n"
        done = self._low_level_execute_command(
            f"LC_ALL=C {sudo} -k {ask} true",
            sudoable=False,
            in_data=f"{password}\n".encode() if password else None,
        )
        error = f"{done.get('stderr', '')}\n{done.get('stdout', '')}".strip()
        return {
            "sudo": judge_sudo(int(done["rc"]), error, bool(password)),
            "sudo_error": " ".join(error.split())[:200],
        }

    def _variable(self, name: str, variables: dict[str, Any]) -> str:
        value = self._templar.template(variables[name]) if name in variables else ""
        return str(value or "")
