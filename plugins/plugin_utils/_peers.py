# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a module on hosts of the inventory that need not be part of the play, from within an action plugin."""

from __future__ import annotations

import copy
import os
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import become_loader

__all__ = ["Answer", "run_on"]

Answer = dict[str, Any]


def run_on(action: ActionBase, host: str, hostvars: Any, module: str, arguments: dict[str, Any], look: bool) -> Answer:
    """Run a module on ``host`` and return its answer, which has `unreachable` or `failed` if it went wrong.

    ``look``: in check mode, whatever the mode of the play. Safe to be called from several threads.
    """
    peer = _peer(action, host, hostvars.raw_get(host), look)
    try:
        answer: Answer = ActionBase._execute_module(
            peer, module_name=module, module_args=arguments, task_vars=peer._templar.available_variables
        )
    except AnsibleConnectionFailure as error:
        return {"unreachable": True, "msg": str(error)}
    except AnsibleError as error:
        return {"failed": True, "msg": str(error)}
    finally:
        peer.cleanup()
    return answer


def _peer(action: ActionBase, host: str, variables: dict[str, Any], look: bool) -> ActionBase:
    """Return the action with a connection to ``host``, set up as Ansible does it for a delegated task."""
    templar = action._templar.copy_with_new_env(available_variables=variables)

    def options(kind: str, plugin: Any) -> dict[str, Any]:
        names = C.config.get_plugin_vars(kind, plugin._load_name)
        return {name: templar.template(variables[name]) for name in names if name in variables}

    context = action._play_context.copy()
    context.remote_addr = templar.template(variables.get("ansible_host", host))
    kind = templar.template(variables.get("ansible_connection") or action._task.connection)
    loader = action._shared_loader_obj.connection_loader
    # Some plugins insist on new_stdin, which nobody uses.
    more = {"new_stdin": None, "task_uuid": action._task._uuid, "ansible_playbook_pid": str(os.getppid())}
    connection = loader.get(kind, context, **more)
    keys = {**action._task.dump_attrs(), "timeout": context.timeout}
    keys.pop("retries", None)
    if context.password:
        keys["password"] = context.password
    connection.set_options(task_keys=keys, var_options=connection._resolve_option_variables(variables, templar))
    connection._shell.set_options(task_keys=keys, var_options=options("shell", connection._shell))
    if boolean(templar.template(variables.get("ansible_become", action._task.become or False))):
        method = templar.template(variables.get("ansible_become_method") or action._task.become_method)
        become = become_loader.get(method)
        if context.become_pass:
            keys["become_pass"] = context.become_pass
        become.set_options(task_keys=keys, var_options=options("become", become))
        connection.set_become_plugin(become)
    peer = copy.copy(action)
    peer._connection, peer._templar, peer._play_context = connection, templar, context
    peer._task = action._task.copy()
    peer._task.check_mode = look or action._task.check_mode
    return peer
