# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Send the files of a release of k3s to a host that doesn't have them; documented with the module."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s.release import Artifact, find_artifacts, sha256_of


class ActionModule(ActionBase):
    """Ask the module what is missing, send just that, and let the module put it in its place."""

    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module once, or twice if something has to be sent."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if arguments.get("state", "present") != "present":
            result.update(self._module(arguments, task_vars))
            return result
        try:
            artifacts = find_artifacts(str(arguments["release_dir"]), str(arguments.get("architecture", "amd64")))
        except KeyError as exc:
            raise AnsibleActionFail(f"k3s_install needs {exc}.") from exc
        except HpcError as exc:
            raise AnsibleActionFail(str(exc)) from exc
        files = [{"kind": item.kind, "name": item.name, "sha256": item.sha256} for item in artifacts]
        answer = self._module({**arguments, "_files": files}, task_vars)
        wanted = [item for item in artifacts if item.name in answer.get("wanted", [])]
        if wanted and not answer.get("failed") and not self._task.check_mode:
            try:
                for item in wanted:
                    files[artifacts.index(item)]["source"] = self._send(item)
                answer = {**self._module({**arguments, "_files": files}, task_vars), "before": answer["before"]}
            finally:
                self._remove_tmp_path(self._connection._shell.tmpdir)
        result.update({key: value for key, value in answer.items() if key != "wanted"})
        return result

    def _module(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        answer: dict[str, Any] = self._execute_module(
            module_name="turnkey.hpc.k3s_install", module_args=arguments, task_vars=task_vars, wrap_async=False
        )
        return answer

    def _send(self, item: Artifact) -> str:
        """Send a file that is what its makers say, and return where it arrived."""
        found = sha256_of(item.path)
        if found != item.sha256:
            raise AnsibleActionFail(
                f"{item.path} has the SHA-256 {found}, and its list says {item.sha256}. "
                "Remedy: fetch the file and the list again."
            )
        if not self._connection._shell.tmpdir:
            self._make_tmp_path()
        place = str(PurePosixPath(self._connection._shell.tmpdir) / item.name)
        return str(self._transfer_file(item.path, place))
