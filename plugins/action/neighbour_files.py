# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the same files on several hosts at once, from one task; documented with the module."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import become_loader
from ansible_collections.turnkey.hpc.plugins.action import config_files

Answer = dict[str, Any]
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
            peer = self._peer(host, hostvars.raw_get(host), look)
            try:
                answer: Answer = ActionBase._execute_module(
                    peer,
                    module_name=call["module_name"],
                    module_args=arguments_for(arguments, host),
                    task_vars=peer._templar.available_variables,
                )
            except AnsibleConnectionFailure as error:
                return {"unreachable": True, "msg": str(error)}
            except AnsibleError as error:
                return {"failed": True, "msg": str(error)}
            finally:
                peer.cleanup()
            return answer

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

    def _peer(self, host: str, variables: dict[str, Any], look: bool) -> ActionBase:
        """Return this action with a connection to ``host``, set up as Ansible does it for a delegated task."""
        templar = self._templar.copy_with_new_env(available_variables=variables)

        def options(kind: str, plugin: Any) -> dict[str, Any]:
            names = C.config.get_plugin_vars(kind, plugin._load_name)
            return {name: templar.template(variables[name]) for name in names if name in variables}

        context = self._play_context.copy()
        context.remote_addr = templar.template(variables.get("ansible_host", host))
        kind = templar.template(variables.get("ansible_connection") or self._task.connection)
        loader = self._shared_loader_obj.connection_loader
        connection = loader.get(kind, context, task_uuid=self._task._uuid, ansible_playbook_pid=str(os.getppid()))
        keys = {**self._task.dump_attrs(), "timeout": context.timeout}
        keys.pop("retries", None)
        if context.password:
            keys["password"] = context.password
        connection.set_options(task_keys=keys, var_options=connection._resolve_option_variables(variables, templar))
        connection._shell.set_options(task_keys=keys, var_options=options("shell", connection._shell))
        if boolean(templar.template(variables.get("ansible_become", self._task.become or False))):
            method = templar.template(variables.get("ansible_become_method") or self._task.become_method)
            become = become_loader.get(method)
            if context.become_pass:
                keys["become_pass"] = context.become_pass
            become.set_options(task_keys=keys, var_options=options("become", become))
            connection.set_become_plugin(become)
        peer = copy.copy(self)
        peer._connection, peer._templar, peer._play_context = connection, templar, context
        peer._task = self._task.copy()
        peer._task.check_mode = look or self._task.check_mode
        return peer
