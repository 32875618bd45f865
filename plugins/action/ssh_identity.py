# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's half of the SSH mesh: signs what the node asks for; documented with the module."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput, join_problems
from ansible_collections.turnkey.hpc.plugins.module_utils._ssh_ca import (
    Authority,
    Certificate,
    CertificateRequest,
    Revocation,
    host_request,
    is_barred,
    load_authority,
    log_issued,
    parse_certificate,
    parse_revocations,
    read_revocations,
    renewal_reasons,
    require_cryptography,
    sign,
    source_addresses,
    spec_text,
    user_request,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._ssh_identity import (
    Paths,
    client_config,
    file_changes,
    known_hosts,
    name_problems,
    server_config,
)

MODULE = "turnkey.hpc.ssh_identity"
DAY_SECONDS = 86400
OPTIONS: dict[str, dict[str, Any]] = {
    "name": {"type": "str"},
    "host_principals": {"type": "list", "elements": "str"},
    "host_patterns": {"type": "list", "elements": "str"},
    "users": {"type": "list", "elements": "str", "default": []},
    "authority_dir": {"type": "path"},
    "host_ca_key": {"type": "str", "default": "", "no_log": True},
    "user_ca_key": {"type": "str", "default": "", "no_log": True},
    "revoked": {"type": "list", "elements": "str", "default": []},
    "source_networks": {"type": "list", "elements": "str", "default": []},
    "user_extensions": {
        "type": "list",
        "elements": "str",
        "choices": [
            "permit-X11-forwarding",
            "permit-agent-forwarding",
            "permit-port-forwarding",
            "permit-pty",
            "permit-user-rc",
        ],
        "default": [
            "permit-X11-forwarding",
            "permit-agent-forwarding",
            "permit-port-forwarding",
            "permit-pty",
        ],
    },
    "host_validity_days": {"type": "int", "default": 365},
    "user_validity_days": {"type": "int", "default": 90},
    "renew_before_days": {"type": "int", "default": 30},
    "max_startups": {"type": "str", "default": "100:30:500"},
    "service": {"type": "str", "default": "ssh"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}
NEVER_EMPTY = ("host_principals", "host_patterns")
REQUIRED_IF = [("state", "present", ("name", *NEVER_EMPTY, "authority_dir"))]


@dataclass
class NodePlan:
    """What the control node wants of one node."""

    files: dict[str, bytes] = field(default_factory=dict)
    reload: bool = False
    signed: list[Certificate] = field(default_factory=list)
    certificates: list[dict[str, Any]] = field(default_factory=list)
    barred: list[str] = field(default_factory=list)
    # What check mode can tell of but not make, for lack of a key or an authority.
    would: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.files or self.reload or self.would)


def check_options(options: dict[str, Any]) -> None:
    """Report all unusable options at once."""
    problems: list[str] = name_problems(options["users"], options["name"])
    problems += [f"{name} is empty. Remedy: give at least one." for name in NEVER_EMPTY if not options[name]]
    if options["renew_before_days"] < 0:
        problems.append(f"renew_before_days is {options['renew_before_days']}. Remedy: give 0 or more.")
    for name in ("host_validity_days", "user_validity_days"):
        if options[name] <= options["renew_before_days"]:
            problems.append(
                f"{name} is {options[name]}, but renew_before_days is {options['renew_before_days']}: every run would "
                "renew. Remedy: make renew_before_days the smaller one."
            )
    if problems:
        raise InvalidInput(join_problems(problems))


def requests_for(
    options: dict[str, Any], report: dict[str, Any], paths: Paths
) -> list[tuple[str, str, CertificateRequest]]:
    """Return (path, public key or nothing, request) of all certificates that the node should have."""
    result = [
        (
            paths.host_certificate,
            report["host_key"],
            host_request(
                report["host_key"], options["name"], options["host_principals"], options["host_validity_days"]
            ),
        )
    ]
    sources = source_addresses(options["source_networks"])
    for user in options["users"]:
        key = report["users"].get(user, "")
        request = user_request(
            key, user, options["name"], options["user_validity_days"], sources, options["user_extensions"]
        )
        result.append((paths.user_key(user) + "-cert.pub", key, request))
    return result


def make_plan(
    options: dict[str, Any],
    report: dict[str, Any],
    authority: Authority | None,
    revocations: Sequence[Revocation],
    krl: bytes | None,
    now: int,
) -> NodePlan:
    """Compare the node's report with what it should have, and sign what is missing.

    ``authority`` and ``krl`` are None only in check mode, while they are not made yet.
    """
    plan, paths = NodePlan(), Paths()
    present: dict[str, dict[str, Any]] = report["files"]
    texts = {path: entry.get("text", "") for path, entry in present.items()}
    wanted: dict[str, bytes] = {}
    for path, key, request in requests_for(options, report, paths):
        current = texts.get(path, "")
        if is_barred(request, revocations):
            plan.barred.append(request.key_id)
            if current:
                wanted[path] = current.encode()
            continue
        if not key or authority is None:
            missing = "there is no key yet" if not key else "there is no authority yet"
            plan.would.append(f"sign {request.kind} certificate {request.key_id} ({missing})")
            plan.certificates.append({"key_id": request.key_id, "reasons": [missing], "serial": 0})
            wanted[path] = current.encode()
            continue
        ca = authority.host if request.kind == "host" else authority.user
        reasons = renewal_reasons(
            request, current, ca.fingerprint, now, options["renew_before_days"] * DAY_SECONDS, revocations
        )
        if not reasons:
            wanted[path] = current.encode()
            continue
        certificate = sign(request, ca, now)
        wanted[path] = certificate.text.encode()
        plan.signed.append(certificate)
        plan.certificates.append({"key_id": request.key_id, "reasons": reasons, "serial": certificate.serial})
    sources = source_addresses(options["source_networks"])
    wanted[paths.server_config] = server_config(
        paths.host_certificate in wanted, report["host_key_line"], options["max_startups"], sources, report["openssh"]
    ).encode()
    wanted[paths.client_config] = client_config(options["host_patterns"]).encode()
    if authority is None:
        plan.would.append(f"write {paths.ours}/user_ca.pub and known_hosts (there is no authority yet)")
    else:
        wanted[f"{paths.ours}/user_ca.pub"] = f"{authority.user.public} user CA\n".encode()
        wanted[f"{paths.ours}/known_hosts"] = known_hosts(options["host_patterns"], authority.host.public).encode()
    if krl is None:
        plan.would.append(f"write {paths.ours}/revoked.krl (the list changes)")
    else:
        wanted[f"{paths.ours}/revoked.krl"] = krl
    # A certificate that only check mode speaks of has no content here.
    changed = [path for path in file_changes(wanted, present) if wanted[path]]
    # The pieces of configuration last: they name the others.
    changed.sort(key=lambda path: path in (paths.server_config, paths.client_config))
    plan.files = {path: wanted[path] for path in changed}
    plan.reload = report["reload"] or paths.server_config in plan.files or paths.host_certificate in plan.files
    return plan


def diff_of(plan: NodePlan, report: dict[str, Any], service: str) -> list[dict[str, str]]:
    """Return the plan in the form of Ansible's diffs."""
    result, prepared = [], list(plan.would)
    for path, data in plan.files.items():
        before = report["files"].get(path, {}).get("text", "")
        after = "" if path.endswith(".krl") else data.decode()
        if path.endswith("-cert.pub"):
            before, after = describe(before), describe(after)
        if path in report["files"] and before == after:
            prepared.append(f"write {path} (content, owner or mode)")
        result.append({"before_header": path, "after_header": path, "before": before, "after": after})
    if plan.reload:
        prepared.append(f"reload or start {service}.service")
    if prepared:
        result.append({"prepared": "".join(f"{line}\n" for line in prepared)})
    return result


def describe(text: str) -> str:
    """Return a certificate in words."""
    if not text.strip():
        return ""
    try:
        words: str = parse_certificate(text).describe()
    except InvalidInput as error:
        words = str(error)
    return f"{words}\n"


class ActionModule(ActionBase):
    """Runs the module to look, signs, and runs it again to write if there is something to write."""

    _supports_check_mode = True
    _supports_async = False
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Make the node part of the mesh."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        _validation, options = self.validate_argument_spec(argument_spec=OPTIONS, required_if=REQUIRED_IF)
        try:
            if options["state"] == "absent":
                arguments = {"state": "absent", "service": options["service"]}
                result.update(self._remote(arguments, task_vars))
                return result
            result.update(self._present(options, task_vars))
        except (HpcError, OSError) as error:
            raise AnsibleActionFail(str(error)) from error
        return result

    def _present(self, options: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Look, sign, write."""
        require_cryptography()
        check_options(options)
        source_addresses(options["source_networks"])
        check: bool = self._task.check_mode
        authority, revocations, krl = self._authority(options, check)
        look = self._remote(
            {
                "phase": "look",
                "name": options["name"],
                "users": options["users"],
                "service": options["service"],
                "revoked_keys": [entry.fingerprint for entry in revocations if entry.fingerprint],
            },
            task_vars,
        )
        if look.get("failed"):
            return look
        report = look.pop("report")
        now = int(time.time())
        plan = make_plan(options, report, authority, revocations, krl, now)
        runs = 1
        if (plan.files or plan.reload) and not check:
            # In the log before they are anywhere else: what is lost on the way can still be revoked.
            log_issued(Path(options["authority_dir"]), plan.signed, now)
            files = [{"path": path, "content": base64.b64encode(data).decode()} for path, data in plan.files.items()]
            arguments = {"phase": "write", "service": options["service"], "files": files, "reload": plan.reload}
            written = self._remote(arguments, task_vars)
            runs = 2
            if written.get("failed"):
                return written
        if check:
            for entry in plan.certificates:
                entry["serial"] = 0
        return {
            "changed": bool(look["changed"] or plan),
            "certificates": plan.certificates,
            "barred": plan.barred,
            "module_runs": runs,
            "diff": [*look["diff"], *diff_of(plan, report, options["service"])],
        }

    def _authority(
        self, options: dict[str, Any], check: bool
    ) -> tuple[Authority | None, list[Revocation], bytes | None]:
        """Return the authority, the revocation list and its binary form."""
        directory = Path(options["authority_dir"])
        authority = load_authority(directory, {"host": options["host_ca_key"], "user": options["user_ca_key"]})
        if authority is None:
            if not check:
                raise HpcError(f"There is no SSH authority in {directory}.", "run turnkey.hpc.ssh_authority before.")
            return None, parse_revocations(options["revoked"]), None
        revocations = read_revocations(options["revoked"], authority)
        spec, krl = directory / "revoked.spec", directory / "revoked.krl"
        if krl.exists() and spec.exists() and spec.read_text() == spec_text(revocations, authority):
            return authority, revocations, krl.read_bytes()
        if not check:
            raise HpcError(
                f"{krl} is not of the revocation list that was given.",
                "run turnkey.hpc.ssh_authority before, with the same list.",
            )
        return authority, revocations, None

    def _remote(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Run the module on the node."""
        answer: dict[str, Any] = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        answer.pop("invocation", None)
        return answer
