# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's half: brings the wheels of an environment that has to be built; documented with the module."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.turnkey.hpc.plugins.action.packages import COLLECTS
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._python_environment import fetch_wheels, pack
from ansible_collections.turnkey.hpc.plugins.module_utils._state import write_atomically

MODULE = "turnkey.hpc.python_environment"
CACHE = "~/.cache/turnkey/wheels"
FACT = "bundle_locks"


def run_here(argv: list[str], stdin: str | None = None) -> tuple[int, str, str]:
    """Run a command on the control node."""
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def collect(arguments: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return what a bundle needs for an environment: its name, and by Python a file with its lock file's text.

    The texts are long, and the same for all hosts: a host's wish has the name of the file.
    """
    cache = Path(arguments.get("cache_dir") or CACHE).expanduser() / "locks"
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    files = {}
    for python, text in arguments["requirements"].items():
        path = cache / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.txt"
        write_atomically(path, text.encode(), 0o644)
        files[str(python)] = str(path)
    return {Path(arguments["path"]).name: files}


class ActionModule(ActionBase):
    """Runs the module, and once more with the wheels if it has to build."""

    _supports_check_mode = True
    _supports_async = False
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Make the environment."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        arguments = dict(self._task.args)
        if (task_vars or {}).get(COLLECTS):
            noted = (task_vars or {}).get("ansible_facts", {}).get(FACT, {})
            return {**result, "changed": False, "ansible_facts": {FACT: {**noted, **collect(arguments)}}}
        answer = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        missing = answer.get("missing")
        if missing and not self._task.check_mode:
            try:
                answer = self._build(arguments, answer["release"], missing, task_vars)
            except (HpcError, OSError) as error:
                raise AnsibleActionFail(str(error)) from error
        answer.pop("missing", None)
        result.update(answer)
        return result

    def _build(
        self, arguments: dict[str, Any], release: str, missing: dict[str, str], task_vars: dict[str, Any] | None
    ) -> dict[str, Any]:
        """Bring the wheels to the host and build there."""
        text = arguments["requirements"][missing["python"]]
        if arguments.get("wheel_dir"):
            directory = Path(arguments["wheel_dir"]).expanduser()
        else:
            cache = Path(arguments.get("cache_dir") or CACHE).expanduser()
            pip = [sys.executable, "-m", "pip"]
            directory = fetch_wheels(run_here, cache, release, text, missing["python"], missing["machine"], pip)
        if not self._connection._shell.tmpdir:
            self._make_tmp_path()
        remote = self._connection._shell.join_path(self._connection._shell.tmpdir, "wheels.tar")
        with tempfile.TemporaryDirectory() as scratch:
            archive = Path(scratch, "wheels.tar")
            pack(directory, archive, text, missing["machine"])
            self._transfer_file(str(archive), remote)
        self._fixup_perms2((self._connection._shell.tmpdir, remote))
        answer: dict[str, Any] = self._execute_module(
            module_name=MODULE, module_args={**arguments, "_wheels": remote}, task_vars=task_vars
        )
        return answer
