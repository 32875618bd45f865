# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Before each start of the hub: its database is made fit for its release, with a backup on the way up and back.

Role jupyterhub installs this file, which imports nothing of the collection. It runs with the hub's Python.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

__all__ = ["decide", "main", "revision"]

KEPT = 5


def revision(path: Path) -> str:
    """Return the revision of the schema of a database, or the empty string if there is none."""
    if not path.exists():
        return ""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        try:
            row = database.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError:
            return ""
    return str(row[0]) if row else ""


def decide(last: str, release: str, present: str, saved: str) -> list[str]:
    """Return what is to be done before ``release`` may have the database that ``last`` used.

    ``present`` is the revision of the database, ``saved`` that of the backup that was made when ``release`` was left.
    """
    if last == release or not present:
        return []
    if saved and saved != present:
        # The release is an older one and doesn't know the schema. JupyterHub has no way down.
        return ["backup", "restore"]
    return ["backup", "upgrade"]


def copy(source: Path, target: Path) -> None:
    """Copy a database, also one that was not closed."""
    fresh = target.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with closing(sqlite3.connect(source)) as one, closing(sqlite3.connect(fresh)) as other:
        one.backup(other)
    fresh.replace(target)


def main(state: Path, release: str, config: str) -> int:
    """Do it. ``state`` is the hub's directory, ``release`` the name of its environment."""
    database, note, backups = state / "jupyterhub.sqlite", state / "release", state / "backups"
    last = note.read_text(encoding="ascii").strip() if note.exists() else ""
    backup = backups / f"{release}.sqlite"
    for step in decide(last, release, revision(database), revision(backup)):
        sys.stdout.write(f"The database was last used by release {last or 'unknown'}, now comes {release}: {step}\n")
        sys.stdout.flush()
        if step == "backup":
            backups.mkdir(mode=0o700, exist_ok=True)
            # The name of the release says to whom it goes back.
            copy(database, backups / f"{last or 'unknown'}.sqlite")
        elif step == "restore":
            database.rename(state / f"jupyterhub.sqlite.{last}.{int(time.time())}")
            copy(backup, database)
        else:
            done = subprocess.run(
                [str(Path(sys.executable).parent / "jupyterhub"), "upgrade-db", f"--config={config}"],
                check=False,
                cwd=state,
            )
            if done.returncode:
                return done.returncode
    for old in sorted(backups.glob("*.sqlite"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
        old.unlink()
    note.write_text(f"{release}\n", encoding="ascii")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), Path(sys.prefix).resolve().name, sys.argv[2]))
