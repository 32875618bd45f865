# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One-time passwords of the hub, and a limit on how fast passwords can be tried.

People log in to the cluster with keys, so most have no password. On the hub's host ``jupyterhub-password`` gives them
one that is good for one login. It leaves a file in a directory where everybody may write but only the hub may look
(mode 1733, like a letter box). The file's owner, whom the kernel vouches for, says whose password it is; its content is
the password's hash.

Role jupyterhub installs this file, which imports nothing of the collection and works with Python 3.9.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["LETTER_BOX", "Limiter", "drop", "main", "take"]

LETTER_BOX = "/run/jupyterhub-logins"
VALID_SECONDS = 600
# No 0, O, 1, l: people type it.
ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
GROUPS, GROUP_LENGTH = 4, 5


def digest(password: str) -> str:
    """Return what is stored of a password. It is random and long, so that a plain hash does."""
    return hashlib.sha256(password.encode()).hexdigest()


def drop(box: Path, password: str = "") -> str:
    """Put a new password into the letter box, as its owner, and return it."""
    groups = ("".join(secrets.choice(ALPHABET) for number in range(GROUP_LENGTH)) for group in range(GROUPS))
    password = password or "-".join(groups)
    path = box / secrets.token_hex(16)
    # Whole before it has the name that counts: the hub never reads a part.
    handle = os.open(path.with_suffix(".new"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    with os.fdopen(handle, "w") as stream:
        stream.write(digest(password))
        os.fchmod(stream.fileno(), 0o644)
    path.with_suffix(".new").rename(path)
    return password


def letters(box: Path, now: float) -> Iterator[tuple[Path, int, str]]:
    """Return path, owner and content of what is in the box, and remove what is too old."""
    for path in sorted(box.iterdir()) if box.is_dir() else []:
        try:
            # A link could lead to somebody else's file.
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            status = os.fstat(handle)
            regular = stat.S_ISREG(status.st_mode)
            content = os.read(handle, 65).decode("ascii", "replace") if regular else ""
        finally:
            os.close(handle)
        # Everybody may put anything there: what is no letter does no harm.
        if regular and not 0 <= now - status.st_mtime <= VALID_SECONDS:
            path.unlink(missing_ok=True)
        elif regular and path.suffix != ".new" and status.st_nlink == 1:
            yield path, status.st_uid, content


def take(box: Path, uid: int, password: str, now: float | None = None) -> bool:
    """Return whether ``password`` is one that the account ``uid`` left in the box; it is good for this once."""
    wanted, found = digest(password), False
    for path, owner, content in letters(box, time.time() if now is None else now):
        if owner == uid and secrets.compare_digest(content, wanted):
            path.unlink(missing_ok=True)
            found = True
    return found


@dataclass
class Limiter:
    """Lets each name and each address fail some times, and then once every ``seconds``."""

    attempts: int = 5
    seconds: float = 30.0
    failed: dict[str, tuple[float, float]] = field(default_factory=dict)

    def wait(self, keys: list[str], now: float) -> float:
        """Return for how many seconds the next try by any of ``keys`` is refused."""
        # A bucket that leaks: a failure fills it, time empties it.
        return max(max(0.0, (self.level(key, now) - self.attempts + 1) * self.seconds) for key in keys)

    def level(self, key: str, now: float) -> float:
        """Return how full the bucket of ``key`` is."""
        level, at = self.failed.get(key, (0.0, now))
        return max(0.0, level - (now - at) / self.seconds)

    def note(self, keys: list[str], ok: bool, now: float) -> None:
        """Note a try. One that succeeds clears the name, the first of ``keys``, but not the address."""
        self.failed = {key: entry for key, entry in self.failed.items() if self.level(key, now) > 0}
        if ok:
            self.failed.pop(keys[0], None)
            return
        for key in keys:
            self.failed[key] = (min(self.level(key, now) + 1, self.attempts), now)


def main() -> int:
    """Print a password for the person who calls."""
    try:
        password = drop(Path(LETTER_BOX))
    except OSError as error:
        sys.stderr.write(
            f"No password: {LETTER_BOX}: {error.strerror}. Remedy: call this on the hub's host, while it runs.\n"
        )
        return 1
    if sys.stdout.isatty():
        sys.stderr.write(f"Good for one login within {VALID_SECONDS // 60} minutes:\n")
    sys.stdout.write(f"{password}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
