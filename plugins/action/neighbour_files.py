# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the same files on several hosts at once, from one task; documented with the module."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleActionFail
from ansible_collections.turnkey.hpc.plugins.action import config_files
from ansible_collections.turnkey.hpc.plugins.plugin_utils._peers import Answer, run_on

NAME = "@name@"


def arguments_for(arguments: dict[str, Any], host: str) -> dict[str, Any]:
    """Return the arguments of the module for one host: its name in the patterns. Pure."""
    files = [
        {**item, "replaces": item["replaces"].replace(NAME, re.escape(host))} if item.get("replaces") else item
        for item in arguments["files"]
    ]
    return {**arguments, "files": files}


def tell(hosts: Sequence[str], ask: Callable[[str, bool], Answer], workers: int, check: bool) -> dict[str, Answer]:
    """Write on all hosts, the last one last; nothing if that one, asked before, has it all. Pure but for ``ask``.

    ``ask`` takes a host, and whether only to look; its answer has ``changed``, ``unreachable`` or ``failed``.
    """
    if not hosts:
        return {}
    last = hosts[-1]
    answers = {last: ask(last, True)}
    if not any(answers[last].get(key) for key in ("changed", "unreachable", "failed")):
        return answers
    with ThreadPoolExecutor(max_workers=workers) as pool:
        answers.update(zip(hosts[:-1], pool.map(lambda host: ask(host, check), hosts[:-1])))
    if not check and not answers[last].get("unreachable"):
        answers[last] = ask(last, False)
    return answers


class ActionModule(config_files.ActionModule):
    """Prepare the texts as ``config_files`` does, and run its module elsewhere."""

    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Write the files on the hosts."""
        hosts = self._task.args.get("hosts")
        known = (task_vars or {})["groups"]["all"]
        if not isinstance(hosts, list) or not set(hosts) <= set(known):
            raise AnsibleActionFail(f"'hosts' must be a list of names of hosts of the inventory, not {hosts!r}.")
        self._hosts = [str(host) for host in hosts]
        result: dict[str, Any] = super().run(tmp, task_vars)
        return result

    def _execute_module(self, **call: Any) -> Answer:
        """Stand in for the one run that ``config_files`` makes."""
        arguments = {name: value for name, value in call["module_args"].items() if name != "hosts"}
        hostvars = call["task_vars"]["hostvars"]

        def ask(host: str, look: bool) -> Answer:
            return run_on(self, host, hostvars, call["module_name"], arguments_for(arguments, host), look)

        answers = tell(self._hosts, ask, C.DEFAULT_FORKS, self._task.check_mode)
        return self._summed_up(answers)

    @staticmethod
    def _summed_up(answers: dict[str, Answer]) -> Answer:
        result: Answer = {
            "changed": any(answer.get("changed") for answer in answers.values()),
            "asked": list(answers),
            "changed_hosts": [host for host, answer in answers.items() if answer.get("changed")],
            "unreachable_hosts": [host for host, answer in answers.items() if answer.get("unreachable")],
            "diff": [part for answer in answers.values() for part in answer.get("diff") or []],
        }
        failed = [f"{host}: {answer.get('msg', '')}" for host, answer in answers.items() if answer.get("failed")]
        if failed:
            result.update(failed=True, msg="\n".join(failed))
        if result["unreachable_hosts"]:
            names = ", ".join(result["unreachable_hosts"])
            result["warnings"] = [f"Not told, as they don't answer: {names}. They learn it from their own next run."]
        return result
