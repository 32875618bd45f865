# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's half: signs; documented with the module."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._tls import (
    load_authority,
    make_authority,
    renewal_reasons,
    require_cryptography,
    sign,
)

MODULE = "turnkey.hpc.tls_certificate"
OPTIONS: dict[str, dict[str, Any]] = {
    "directory": {"type": "path", "required": True},
    "group": {"type": "str", "default": "root"},
    "names": {"type": "list", "elements": "str", "default": []},
    "authority_dir": {"type": "path"},
    "authority_name": {"type": "str", "default": "turnkey"},
    "days": {"type": "int", "default": 397},
    "renew_days": {"type": "int", "default": 60},
}


def make_files(
    options: dict[str, Any], report: dict[str, Any], check_mode: bool, now: datetime.datetime
) -> tuple[dict[str, str], list[str]]:
    """Return the files that have to be written on the host, and why."""
    directory = Path(options["authority_dir"])
    authority = load_authority(directory) if check_mode else make_authority(directory, options["authority_name"], now)
    if authority is None or not report["key"]:
        return {}, ["there is none"]
    files, reasons = {}, []
    why = renewal_reasons(
        authority, report["files"]["server.crt"], report["key"], options["names"], options["renew_days"], now
    )
    if why:
        files["server.crt"] = sign(authority, report["key"], options["names"], options["days"], now)
        reasons += why
    if report["files"]["ca.crt"] != authority.text:
        files["ca.crt"] = authority.text
        reasons += [] if why else ["the host doesn't have the authority's certificate"]
    return files, reasons


class ActionModule(ActionBase):
    """Runs the module to look, signs, and runs it again to write if there is something to write."""

    _supports_check_mode = True
    _supports_async = False
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Certify the host."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        _validation, options = self.validate_argument_spec(argument_spec=OPTIONS)
        remote = {name: options[name] for name in ("directory", "group")}
        try:
            require_cryptography()
            if not options["names"] or not options["authority_dir"]:
                raise InvalidInput("names or authority_dir is empty.", "give both.")
            report = self._execute_module(module_name=MODULE, module_args=remote, task_vars=task_vars)
            if report.get("failed"):
                result.update(report)
                return result
            check = self._task.check_mode
            files, reasons = make_files(options, report, check, datetime.datetime.now(datetime.timezone.utc))
            if files and not check:
                written = self._execute_module(
                    module_name=MODULE, module_args={**remote, "_files": files}, task_vars=task_vars
                )
                if written.get("failed"):
                    result.update(written)
                    return result
        except (HpcError, OSError) as error:
            raise AnsibleActionFail(str(error)) from error
        result["changed"] = bool(report["changed"] or reasons)
        result["reasons"] = reasons
        result["diff"] = {"prepared": "".join(f"sign {options['names'][0]}: {reason}\n" for reason in reasons)}
        return result
