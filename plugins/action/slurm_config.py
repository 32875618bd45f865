# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Configure all controllers of Slurm from one task, and measure the nodes that are new; documented with the module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._hostlist import expand, fold
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.figures import complete_kinds
from ansible_collections.turnkey.hpc.plugins.plugin_utils._peers import Answer, run_on

# (host, arguments) -> answer of the module on that host
Configure = Callable[[str, dict[str, Any]], Answer]
Measure = Callable[[Sequence[str]], Mapping[str, Answer]]


def configure_all(hosts: Sequence[str], configure: Configure, measure: Measure) -> dict[str, Any]:
    """Configure the primary controller, then the others with what that one knows. Pure but for its callables."""
    primary, *others = hosts
    warnings: list[str] = []
    given: dict[str, Any] = {"primary": True}
    answer = configure(primary, given)
    asked: list[str] = []
    if answer.get("missing"):
        asked = expand(answer["missing"])
        answers = measure(asked)
        given["measured"] = {name: found["hardware"] for name, found in answers.items() if "hardware" in found}
        given["unmeasured"] = [name for name in asked if name not in given["measured"]]
        if given["unmeasured"]:
            warnings.append(
                f"Not measured, so not in slurm.conf yet: {fold(given['unmeasured'])} "
                f"({answers[given['unmeasured'][0]].get('msg', 'no answer')}). Run again when they answer."
            )
        answer = configure(primary, given)
    answers = {primary: answer}
    for host in others if "hardware" in answer else []:
        more = {"known": answer["hardware"], "unmeasured": given.get("unmeasured", []), "primary": False}
        answers[host] = configure(host, more)
    unreachable = [host for host, one in answers.items() if one.get("unreachable")]
    failed = [f"{host}: {one.get('msg', '')}" for host, one in answers.items() if one.get("failed")]
    if answer.get("unreachable"):
        failed.append(f"{primary}, the primary controller, can't be reached: {answer.get('msg', '')}")
    elif unreachable:
        warnings.append(f"Not told, as they don't answer: {', '.join(unreachable)}. Run again when they do.")
    result: dict[str, Any] = {
        "changed": any(one.get("changed") for one in answers.values()),
        "applied": {host: one["applied"] for host, one in answers.items() if "applied" in one},
        "reasons": answer.get("reasons", []),
        "release": answer.get("release", ""),
        "asked": asked,
        "unreachable_hosts": unreachable,
        "warnings": warnings,
    }
    diff = [(host, part) for host, one in answers.items() for part in one.get("diff") or []]
    if diff:
        result["diff"] = [{**part, "before_header": f"{host}: {part['before_header']}"} for host, part in diff]
    if failed:
        result.update(failed=True, msg="\n".join(failed))
    return result


def completed(kinds: object, machines: Mapping[str, Any], factor: object) -> object:
    """Return kinds of nodes with what their providers tell of machines that aren't there yet.

    Raises AnsibleActionFail.
    """
    if not isinstance(kinds, list) or not all(isinstance(kind, Mapping) for kind in kinds):
        return kinds  # the module tells what is wrong with them

    def look_up(provider: str, types: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
        # Few sites have such kinds, and the providers take a moment to import.
        from ansible_collections.turnkey.hpc.plugins.module_utils._providers.registry import connect_cloud

        cloud = connect_cloud(provider, machines.get("cloud") or {})
        return cloud.patient(lambda: cloud.figures(types))

    try:
        return complete_kinds(kinds, machines.get("libvirt") or {}, look_up, float(str(factor)))
    except HpcError as error:
        raise AnsibleActionFail(f"The CPUs and the memory of elastic nodes: {error}") from error


class ActionModule(ActionBase):
    """Run the module on the controllers, and ask nodes what they are made of."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Configure the controllers."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        hostvars = (task_vars or {})["hostvars"]
        arguments = dict(self._task.args)
        controllers = arguments.get("controllers")
        if not isinstance(controllers, list) or not controllers or not all("name" in one for one in controllers):
            raise AnsibleActionFail("'controllers' must be a list of dictionaries that have a name each.")
        hosts = [str(one["name"]) for one in controllers]
        strangers = [host for host in hosts if host not in hostvars]
        if strangers:
            raise AnsibleActionFail(f"{', '.join(strangers)} of 'controllers' must be hosts of the inventory.")
        machines = arguments.pop("machines", None) or {}
        if arguments.get("kinds") and arguments.get("state") != "absent":
            arguments["kinds"] = completed(arguments["kinds"], machines, arguments.get("memory_factor", 0.95))
        nodes = arguments.get("nodes") or []
        try:
            arguments["nodes"] = fold(map(str, nodes)) if isinstance(nodes, (list, tuple)) else str(nodes)
        except InvalidInput as error:
            raise AnsibleActionFail(f"'nodes': {error}") from error

        def configure(host: str, given: dict[str, Any]) -> Answer:
            return run_on(self, host, hostvars, "turnkey.hpc.slurm_config", {**arguments, "_given": given}, False)

        def measure_one(host: str) -> Answer:
            if host not in hostvars:
                return {"msg": "no host of the inventory"}
            return run_on(self, host, hostvars, "turnkey.hpc.slurm_hardware_info", {}, False)

        def measure(names: Sequence[str]) -> Mapping[str, Answer]:
            with ThreadPoolExecutor(max_workers=C.DEFAULT_FORKS) as pool:
                return dict(zip(names, pool.map(measure_one, names)))

        result.update(configure_all(hosts, configure, measure))
        return result
