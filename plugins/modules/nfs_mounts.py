#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nfs_mounts
short_description: Mount NFS directories through systemd, all of them at once
version_added: "0.1.0"
author: The turnkey.hpc founders (@turnkey-hpc)
description:
  - Makes one systemd mount unit for each of O(mounts), enables and starts it.
  - Takes away those units that this module made earlier and that are no longer listed.
    Other mounts and units are left alone.
  - The mounts wait for their server for as long as it takes, without holding up the boot, a login or a shutdown.
    They survive a reboot of either side.
  - Nothing is ever unmounted by force.
    If a mount that must change or go is busy, the module fails and no unit is changed.
  - A mount point that this module made is removed with its mount if it is empty.
options:
  mounts:
    description: The mounts that the host shall have. An empty list removes all that this module made.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Where to mount.
        type: path
        required: true
      server:
        description: Host name or address of the server.
        type: str
        required: true
      export:
        description: The server's directory. By default the same as O(mounts[].path).
        type: str
      options:
        description: Mount options in place of O(default_options).
        type: list
        elements: str
  default_options:
    description:
      - Options of mounts that have none of their own. C(_netdev) and C(nofail) are always added.
      - C(retry=1) is added where there is no C(retry). That is one try of a minute, after which systemd tries again.
    type: list
    elements: str
    default: [vers=4.2, hard]
  required_directories:
    description: Directories that something else provides. The module fails if one is missing.
    type: list
    elements: path
    default: []
attributes:
  check_mode:
    description: Can run in check mode and return what it would do without doing it.
    support: full
  diff_mode:
    description: Shows the units before and after.
    support: full
  idempotent:
    description: Changes nothing when run again.
    support: full
"""

EXAMPLES = r"""
- name: Mount the shared directory
  turnkey.hpc.nfs_mounts:
    mounts:
      - path: /shared
        server: head

- name: Take away all mounts that were made so
  turnkey.hpc.nfs_mounts:
    mounts: []
"""

RETURN = r"""
steps:
  description: What was done, in order.
  returned: success
  type: list
  elements: str
  sample:
    - mkdir /shared
    - write /etc/systemd/system/shared.mount
    - reload systemd
    - enable shared.mount
    - start shared.mount
"""

import contextlib
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, errors_end, join_problems
from ansible_collections.turnkey.hpc.plugins.module_utils._nfs import (
    RETRY_UNIT,
    UNIT_DIRECTORY,
    Action,
    MountSpec,
    Run,
    Support,
    Unit,
    mount_specs,
    parse_mountinfo,
    parse_unit,
    plan_mounts,
)

WANTS = Path(UNIT_DIRECTORY) / "remote-fs.target.wants"


def read_units() -> tuple[dict[str, Unit], list[str]]:
    """Return our mount units by path, and the names of the other mount units in /etc."""
    ours: dict[str, Unit] = {}
    foreign = []
    for path in sorted(Path(UNIT_DIRECTORY).glob("*.mount")):
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        unit = parse_unit(text, (WANTS / path.name).is_symlink())
        if unit:
            ours[unit.path] = unit
        else:
            foreign.append(path.name)
    return ours, foreign


def check_support(specs: list[MountSpec], run: Run) -> None:
    """Fail if the kernel can't mount what is wanted."""
    support = Support.of_this_host(run)
    if not support.client:
        paths = ", ".join(spec.path for spec in specs)
        raise HpcError(
            f"The kernel of this host can't mount NFS, so {paths} can't be mounted"
            f"{' (the host is a container, which can load no kernel module)' if support.container else ''}.",
            "mount a shared directory there by other means (a volume) and set cluster_shared_dir_source=provided, "
            "or run a kernel that has the module nfsv4.",
        )


def apply(action: Action, run: Run) -> None:
    """Do one step."""
    path = Path(action.target)
    if action.verb == "mkdir":
        path.mkdir(mode=0o755, parents=True)
    elif action.verb == "rmdir":
        # It stays if it holds something.
        with contextlib.suppress(OSError):
            path.rmdir()
    elif action.verb == "write":
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_text(action.text, encoding="utf-8")
        temporary.chmod(0o644)
        temporary.replace(path)
    elif action.verb == "delete":
        path.unlink()
    elif action.verb == "reload":
        systemctl(run, ["daemon-reload"], "reload systemd", "")
    elif action.verb == "stop":
        systemctl(
            run,
            ["stop", action.target],
            f"unmount {action.target}",
            "see with 'fuser -vm' who uses it, let these jobs end, and run this again. No unit was changed.",
        )
    elif action.verb == "start":
        systemctl(
            run,
            ["start", action.target],
            f"mount {action.target}",
            "see 'systemctl status' of it on this host. The server must run, export this path to this host's address, "
            "and be reachable on TCP port 2049. The host goes on trying by itself.",
        )
    else:
        systemctl(run, [action.verb, action.target], f"{action.verb} {action.target}", "")


def systemctl(run: Run, arguments: list[str], what: str, remedy: str) -> None:
    """Run systemctl, and turn a failure into a message that says ``what`` was to be done."""
    rc, _out, err = run(["systemctl", "--no-ask-password", *arguments], None)
    if rc == 0:
        return
    detail = err.strip()
    if arguments[0] in ("start", "stop"):
        log = run(["journalctl", "--no-pager", "--output=cat", "--lines=5", f"--unit={arguments[1]}"], None)[1]
        detail = "\n".join(part for part in (detail, log.strip()) if part)
    raise HpcError(f"Can't {what}: {detail}", remedy)


def run_module(module: AnsibleModule) -> dict[str, Any]:
    """Look, plan, and unless in check mode act."""

    def run(argv: list[str], stdin: str | None = None) -> tuple[int, str, str]:
        try:
            return module.run_command(argv, data=stdin, handle_exceptions=False)  # type: ignore[no-any-return]
        except OSError as error:
            return 127, "", str(error)

    missing = [path for path in module.params["required_directories"] if not Path(path).is_dir()]
    if missing:
        raise HpcError(
            join_problems(
                [
                    f"{path} doesn't exist, but cluster_shared_dir_source=provided says that it is shared already. "
                    "Remedy: mount it on this host, or set cluster_shared_dir_source=nfs."
                    for path in missing
                ]
            )
        )
    specs = mount_specs(module.params["mounts"], module.params["default_options"])
    units, foreign = read_units()
    retry = Path(UNIT_DIRECTORY) / RETRY_UNIT
    actions = plan_mounts(
        specs,
        units,
        foreign,
        parse_mountinfo(Path("/proc/self/mountinfo").read_text(encoding="utf-8")),
        [spec.path for spec in specs if Path(spec.path).is_dir()],
        retry.read_text(encoding="utf-8") if retry.is_file() else None,
    )
    if specs and actions:
        check_support(specs, run)
    if not module.check_mode:
        for action in actions:
            apply(action, run)
    files = [action for action in actions if action.verb in ("write", "delete")]
    return {
        "changed": bool(actions),
        "steps": [f"{action.verb} {action.target}" for action in actions],
        "diff": [
            {
                "before_header": action.target,
                "after_header": action.target,
                "before": action.before,
                "after": action.text,
            }
            for action in files
        ],
    }


def main() -> None:
    """Run as an Ansible module."""
    mount = {
        "path": {"type": "path", "required": True},
        "server": {"type": "str", "required": True},
        "export": {"type": "str"},
        "options": {"type": "list", "elements": "str"},
    }
    module = AnsibleModule(
        argument_spec={
            "mounts": {"type": "list", "elements": "dict", "required": True, "options": mount},
            "default_options": {"type": "list", "elements": "str", "default": ["vers=4.2", "hard"]},
            "required_directories": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    with errors_end(module):
        result = run_module(module)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
