# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's half: packs what the host lacks; documented with the module."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.copy import batches
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.manifest import MANIFEST, File, parse
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.tree import digest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError

MODULE = "turnkey.hpc.bundle_files"
BATCH_BYTES = 256_000_000


def pack(bundle: Path, files: list[File], archive: Path) -> None:
    """Put files of the bundle into an archive, as they are."""
    with tarfile.open(archive, "w") as stream:
        for file in files:
            stream.add(bundle / file.path, file.path, recursive=False)


class ActionModule(ActionBase):
    """Asks the host what it lacks, and brings that."""

    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Copy the bundle."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if arguments.get("state", "present") == "absent":
            result.update(self._execute_module(MODULE, module_args=arguments, task_vars=task_vars))
            return result
        bundle = Path(str(arguments["bundle"])).expanduser()
        try:
            if digest(bundle / MANIFEST) != arguments["manifest_sha256"]:
                raise AnsibleActionFail(f"{bundle} was changed since it was verified. Remedy: run again.")
            text = (bundle / MANIFEST).read_text(encoding="utf-8")
            files = {file.path: file for file in parse(text, str(bundle / MANIFEST)).files}
            answer = self._bring(bundle, files, arguments, task_vars)
        except (HpcError, OSError) as error:
            raise AnsibleActionFail(str(error)) from error
        answer.pop("missing", None)
        result.update(answer)
        return result

    def _bring(
        self, bundle: Path, files: dict[str, File], arguments: dict[str, Any], task_vars: dict[str, Any] | None
    ) -> dict[str, Any]:
        """Run the module until nothing is missing."""
        if not self._connection._shell.tmpdir:
            self._make_tmp_path()
        folder = self._connection._shell.tmpdir
        manifest = self._connection._shell.join_path(folder, MANIFEST)
        archive = self._connection._shell.join_path(folder, "files.tar")
        self._transfer_file(str(bundle / MANIFEST), manifest)
        self._fixup_perms2((folder, manifest))
        given = {**arguments, "_manifest": manifest}

        def ask(**more: Any) -> dict[str, Any]:
            answer: dict[str, Any] = self._execute_module(MODULE, module_args={**given, **more}, task_vars=task_vars)
            return answer

        answer = ask()
        missing = [files[path] for path in answer.get("missing", [])]
        if answer.get("failed") or answer.get("unreachable") or self._task.check_mode or not answer["changed"]:
            return answer
        for group in batches(missing, BATCH_BYTES):
            with tempfile.NamedTemporaryFile(prefix="turnkey-bundle-") as local:
                pack(bundle, group, Path(local.name))
                self._transfer_file(local.name, archive)
            self._fixup_perms2((folder, archive))
            step = ask(_archive=archive)
            if step.get("failed") or step.get("unreachable"):
                return step
        last = ask(_finish=True)
        return last if last.get("failed") else {**last, "copied": len(missing), "diff": answer.get("diff", [])}
