# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at a host and return what would go wrong on it as data; documented with the module of the same name."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
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
from ansible_collections.turnkey.hpc.plugins.module_utils._preflight_network import (
    Probe,
    Surroundings,
    find_local_problems,
    name_listeners,
    node_address,
    parse_ss,
    plan_probes,
    read_ports,
    unnamed_listeners,
)

OPTIONS: dict[str, dict[str, Any]] = {
    "supported_releases": {"type": "list", "elements": "str", "required": True},
    "min_python": {"type": "str", "default": "3.9"},
    "min_cores": {"type": "int", "default": 1},
    "min_memory_mb": {"type": "int", "default": 0},
    "min_disk_gb": {"type": "float", "default": 0},
    "min_disk_configured_gb": {"type": "float", "default": 0},
    "max_clock_skew_seconds": {"type": "float", "default": 5},
    "network": {"type": "str", "required": True},
    "address": {"type": "str", "default": ""},
    "interface": {"type": "str", "default": ""},
    "users": {"type": "list", "elements": "dict", "default": []},
    "cluster_name": {"type": "str", "default": ""},
    "domain": {"type": "str", "default": ""},
    "authority_dir": {"type": "path", "default": ""},
    "head": {"type": "str", "default": ""},
    "ports_free": {"type": "list", "elements": "dict", "default": []},
    "ports_open": {"type": "list", "elements": "dict", "default": []},
    "kernel_features": {
        "type": "list",
        "elements": "str",
        "choices": ["nfs_client", "nfs_server"],
        "default": [],
    },
    "exports": {"type": "list", "elements": "path", "default": []},
    "packages": {"type": "list", "elements": "str", "default": []},
    "look_up_names": {"type": "bool", "default": True},
}
OF_REQUIREMENTS = {entry.name for entry in dataclasses.fields(Requirements)}
PATHS = ["/", "/var"]
SUDO_METHODS = ("sudo", "ansible.builtin.sudo")
SUDO_PASSWORDS = ("ansible_become_password", "ansible_become_pass", "ansible_sudo_pass")


def read_authority(directory: str) -> str:
    """Return the public key of the cluster's user authority on the control node, or nothing if there is none yet."""
    if not directory:
        return ""
    try:
        return " ".join((Path(directory) / "user_ca.pub").read_text(encoding="utf-8").split()[:2])
    except OSError:
        return ""


class ActionModule(ActionBase):
    """Run the survey on the host, and turn whatever happens into a list of problems."""

    _supports_check_mode = True
    TRANSFERS_FILES = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return ``problems``; fail on wrong options only."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        _validation, options = self.validate_argument_spec(OPTIONS)
        requirements = Requirements(**{name: options[name] for name in OF_REQUIREMENTS})
        try:
            ports_free = read_ports("preflight_ports_free", options["ports_free"])
            ports_open = read_ports("preflight_ports_open", options["ports_open"])
        except HpcError as error:
            raise AnsibleActionFail(str(error)) from error
        host = str(variables.get("inventory_hostname") or "")
        members = list(variables.get("ansible_play_hosts_all") or [host])
        probes = self._with_addresses(plan_probes(host, members, options["head"], ports_open), variables)
        wanted = Surroundings(
            host=host,
            ports_free=ports_free,
            kernel_features=options["kernel_features"],
            cluster_name=options["cluster_name"],
            domain=options["domain"],
            authority=read_authority(options["authority_dir"]),
            authority_dir=options["authority_dir"],
        )
        survey: dict[str, Any] = {}
        names = [host, *dict.fromkeys(probe.peer for probe, _address in probes if probe.port.protocol == "mtu")]
        questions = {
            "paths": PATHS,
            "users": wanted_accounts(options["users"]),
            "ports": [
                {"port": number, "protocol": protocol}
                for number, protocol in sorted({(port.port, port.protocol) for port in (*ports_free, *ports_open)})
            ],
            "targets": [
                {"address": address, "port": probe.port.port, "protocol": probe.port.protocol}
                for probe, address in probes
            ],
            "source": requirements.address,
            "names": names if options["look_up_names"] else [],
            "packages": options["packages"],
            "exports": options["exports"],
            "own_files": [path for port in ports_free if port.is_on(host) for path in port.configured_by],
            "kernel": bool(options["kernel_features"]),
        }
        try:
            survey, problems = self._survey(questions, requirements.min_python, variables, result)
            if survey:
                survey.update(self._sudo(survey, variables))
                if survey["sudo"] == "ok" and unnamed_listeners(survey, wanted):
                    shown = self._as_root("ss -Hltunp", variables)
                    survey = name_listeners(survey, parse_ss(shown.get("stdout", "")))
                problems = [*find_problems(survey, requirements), *find_local_problems(survey, wanted)]
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
            probes=[
                {
                    "peer": probe.peer,
                    "address": address,
                    "port": probe.port.port,
                    "protocol": probe.port.protocol,
                    "service": probe.port.service,
                    "size": survey["mtu"],
                    **outcome,
                }
                for (probe, address), outcome in zip(probes, survey.get("outcomes", []))
            ],
            problems=[problem.as_dict() for problem in problems],
        )
        return result

    def _with_addresses(self, probes: list[Probe], variables: Mapping[str, Any]) -> list[tuple[Probe, str]]:
        """Return ``probes`` with the addresses of their peers, but for peers that have none."""
        hostvars = variables.get("hostvars") or {}
        addresses = {
            peer: node_address(hostvars[peer]) if peer in hostvars else ""
            for peer in dict.fromkeys(probe.peer for probe in probes)
        }
        return [(probe, addresses[probe.peer]) for probe in probes if addresses[probe.peer]]

    def _survey(
        self, questions: dict[str, Any], min_python: str, variables: dict[str, Any], result: dict[str, Any]
    ) -> tuple[dict[str, Any], list[Problem]]:
        """Return the host's survey, or why there is none."""
        # An inventory may set ansible_become, which outdoes the task's own become.
        self._connection.set_become_plugin(None)
        if getattr(self._connection, "has_pipelining", False):
            # Without it the module's code goes through a temporary directory, and a directory of the user's own stays.
            with contextlib.suppress(AnsibleError, KeyError):
                # Some connections pipeline and have no such option.
                self._connection.set_option("pipelining", True)
        started = time.time()
        answer = self._execute_module(
            module_name="turnkey.hpc.host_survey",
            module_args=questions,
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
        """Try sudo as later plays will use it."""
        method = self._variable("ansible_become_method", variables) or self._play_context.become_method or "sudo"
        if survey["user"]["uid"] == 0 or method not in SUDO_METHODS:
            return {"sudo": "ok"}
        done = self._as_root("true", variables)
        error = f"{done.get('stderr', '')}\n{done.get('stdout', '')}".strip()
        return {
            "sudo": judge_sudo(int(done["rc"]), error, bool(self._password(variables))),
            "sudo_error": " ".join(error.split())[:200],
        }

    def _as_root(self, command: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Run ``command`` with sudo. ``-k`` with a command neither uses nor changes what sudo remembers."""
        password = self._password(variables)
        sudo = shlex.quote(self._variable("ansible_become_exe", variables) or "sudo")
        ask = "-S -p ''" if password else "-n"
        done: dict[str, Any] = self._low_level_execute_command(
            f"LC_ALL=C {sudo} -k {ask} {command}",
            sudoable=False,
            in_data=f"{password}\n".encode() if password else None,
        )
        return done

    def _password(self, variables: dict[str, Any]) -> str:
        given = next(filter(None, (self._variable(name, variables) for name in SUDO_PASSWORDS)), "")
        return given or self._play_context.become_pass or ""

    def _variable(self, name: str, variables: dict[str, Any]) -> str:
        value = self._templar.template(variables[name]) if name in variables else ""
        return str(value or "")
