# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the collection remembers on a host, below /var/lib/turnkey, so that a reset takes back only its own work."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Callable, Optional

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError

__all__ = ["STATE_DIR", "Run", "load_json", "remove_empty_parents", "runner", "save_json", "write_atomically"]

STATE_DIR = "/var/lib/turnkey"

# (argv, stdin) -> (return code, stdout, stderr)
Run = Callable[[list[str], Optional[str]], tuple[int, str, str]]


def runner(run_command: Callable[..., tuple[int, str, str]], environment: dict[str, str] | None = None) -> Run:
    """Make a ``Run`` of ``AnsibleModule.run_command``: C locale, sbin searched, a missing program is 127."""
    fixed = {"LC_ALL": "C", "LANG": "C", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

    def run(argv: list[str], stdin: str | None = None) -> tuple[int, str, str]:
        try:
            return run_command(
                argv,
                data=stdin,
                binary_data=True,
                handle_exceptions=False,
                environ_update={**fixed, **(environment or {})},
            )
        except OSError as exc:
            return 127, "", f"{argv[0]}: {exc.strerror}"

    return run


def load_json(path: Path) -> dict[str, Any]:
    """Return the object stored in ``path``, or an empty one if there is no such file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    try:
        data = json.loads(text)
    except ValueError as exc:
        raise HpcError(
            f"{path} is damaged ({exc}).",
            f"move it away and run again; what it recorded will then stay on the host at a reset ({path.name}).",
        ) from exc
    if not isinstance(data, dict):
        raise HpcError(f"{path} holds no JSON object.", "move it away and run again.")
    return data


def save_json(path: Path, data: dict[str, Any], mode: int = 0o644) -> None:
    """Store ``data`` in ``path``; with nothing to store remove the file, and the directories that it leaves empty."""
    if any(data.values()):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        text = json.dumps(data, indent=2, sort_keys=True) + "\n"
        write_atomically(path, text.encode(), mode)
        return
    path.unlink(missing_ok=True)
    remove_empty_parents(path)


def remove_empty_parents(path: Path, stop: str = "turnkey") -> None:
    """Remove the directories above ``path`` that are empty, up to and including the one called ``stop``."""
    if stop not in path.parent.parts:
        return
    for directory in path.parents:
        try:
            directory.rmdir()
        except FileNotFoundError:
            pass
        except OSError:
            return
        if directory.name == stop:
            return


def write_atomically(path: Path, content: bytes, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Replace ``path`` by a file with ``content``; nobody ever sees a part of it, or a mode wider than ``mode``.

    A mount point can't be replaced (/etc/hosts in a container): it is written in place.
    """
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if owner is not None:
            os.chown(temporary, *owner)
        Path(temporary).chmod(mode)
        try:
            Path(temporary).replace(path)
        except OSError as exc:
            if exc.errno not in (errno.EBUSY, errno.EXDEV):
                raise
            with path.open("r+b") as stream:
                stream.write(content)
                stream.truncate()
            if owner is not None:
                os.chown(path, *owner)
            path.chmod(mode)
    finally:
        Path(temporary).unlink(missing_ok=True)
