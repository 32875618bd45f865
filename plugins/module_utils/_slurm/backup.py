# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives of the accounting database and of the controllers' state, and directories with several of them.

An archive is a tar file whose first member, ``manifest.json``, says what it is of. A backup is a directory with the
archive of each part; it has its name only when it is whole.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, cast

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.releases import check_step, release_of
from ansible_collections.turnkey.hpc.plugins.module_utils._state import Run

__all__ = [
    "PARTS",
    "Manifest",
    "begin",
    "check",
    "complete",
    "find",
    "held",
    "pack_accounting",
    "pack_state",
    "read_manifest",
    "recorded_jobs",
    "unpack_accounting",
    "unpack_state",
]

PARTS = {"accounting": "slurmdbd", "state": "slurmctld"}
"""The parts of a backup, and the daemon that each belongs to."""

STAMP = "%Y%m%dT%H%M%SZ"
FINISHED = re.compile(r"[0-9]{8}T[0-9]{6}Z")
DATABASE = re.compile(r"[A-Za-z0-9_]+")
# Sockets and what a daemon needs only while it runs.
LEFT_OUT = frozenset({"slurmctld.pid"})


@dataclass(frozen=True)
class Manifest:
    """What an archive is of."""

    part: str
    cluster: str
    version: str
    made_at: str


def version(run: Run, part: str) -> str:
    """Return the version of the daemon of ``part`` on this host."""
    daemon = PARTS[part]
    code, out, err = run([daemon, "-V"], None)
    if code or release_of(out) is None:
        raise HpcError(f"{daemon} -V says: {(out + err).strip()}", f"install {daemon} on this host first.")
    return out.split()[-1]


def _pack(archive: Path, manifest: Manifest, content: Path, compress: bool) -> None:
    """Write ``manifest`` and then ``content`` (a file, or what is in a directory)."""
    # The least compression: the daemons wait for it.
    mode: dict[str, Any] = {"mode": "w:gz", "compresslevel": 1} if compress else {"mode": "w"}
    with archive.open("wb") as raw:
        os.fchmod(raw.fileno(), 0o600)
        with tarfile.open(fileobj=raw, **mode) as tar:
            text = json.dumps(asdict(manifest), indent=2).encode()
            first = tarfile.TarInfo("manifest.json")
            first.size, first.mode, first.mtime = len(text), 0o600, int(time.time())
            tar.addfile(first, io.BytesIO(text))
            tar.add(content, content.name, filter=_keep)


def _keep(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    wanted = (member.isreg() or member.isdir()) and Path(member.name).name not in LEFT_OUT
    return member if wanted else None


@contextmanager
def held(run: Run, wanted: bool) -> Iterator[None]:
    """Keep slurmctld stopped: it writes down all it knows when it ends."""

    def systemctl(verb: str) -> None:
        code, _out, err = run(["systemctl", verb, "slurmctld.service"], None)
        if code:
            raise HpcError(f"systemctl {verb} slurmctld failed: {err.strip()}", "see `journalctl -u slurmctld`.")

    if wanted:
        systemctl("stop")
    try:
        yield
    finally:
        if wanted:
            systemctl("start")


def pack_accounting(run: Run, archive: Path, cluster: str, database: str, stamp: str) -> None:
    """Write an archive of the accounting database, as it is at one moment."""
    _check_database(database)
    manifest = Manifest("accounting", cluster, version(run, "accounting"), stamp)
    dump = archive.with_name("accounting.sql.gz")
    command = 'umask 077; set -o pipefail; mariadb-dump --single-transaction --databases "$1" | gzip -1 >"$2"'
    try:
        code, _out, err = run(["bash", "-c", command, "dump", database, str(dump)], None)
        if code:
            raise HpcError(f"mariadb-dump of {database} failed: {err.strip()[-500:]}", "see that MariaDB runs here.")
        _pack(archive, manifest, dump, compress=False)
    finally:
        dump.unlink(missing_ok=True)


def pack_state(run: Run, archive: Path, cluster: str, directory: Path, stamp: str) -> None:
    """Write an archive of the controllers' state. slurmctld does not run meanwhile."""
    if not (directory / "clustername").is_file():
        raise HpcError(f"{directory} is not the state of a slurmctld.", "give its StateSaveLocation.")
    manifest = Manifest("state", cluster, version(run, "state"), stamp)
    _pack(archive, manifest, directory, compress=True)


def read_manifest(archive: Path) -> Manifest:
    """Return what ``archive`` is of; it must be whole up to there."""
    try:
        with tarfile.open(archive) as tar:
            member = tar.next()
            stream = tar.extractfile(member) if member and member.name == "manifest.json" else None
            if stream is None:
                raise ValueError("there is no manifest.json in it")
            return Manifest(**json.load(stream))
    except (OSError, ValueError, TypeError, EOFError, tarfile.TarError) as error:
        raise InvalidInput(
            f"{archive} is no archive of backup.yml: {error}.", "give the directory of a backup."
        ) from error


def check(manifest: Manifest, part: str, cluster: str, here: str) -> None:
    """Refuse an archive that is of something else, or that Slurm ``here`` (a version) can't read."""
    if manifest.part != part or manifest.cluster != cluster:
        raise InvalidInput(
            f"The backup of {manifest.made_at} is of the {manifest.part} of cluster '{manifest.cluster}', "
            f"not of the {part} of cluster '{cluster}'.",
            "give the directory of a backup of this cluster.",
        )
    old, new = release_of(f" {manifest.version}"), release_of(f" {here}")
    if old is None or new is None:
        raise HpcError(f"Versions {manifest.version!r} and {here!r} can't be compared.", "see the archive's manifest.")
    check_step(old, new, f"The backup of {manifest.made_at}")


def _check_database(database: str) -> None:
    if not DATABASE.fullmatch(database):
        raise InvalidInput(f"{database!r} can't be the name of a database.", "use letters, digits and '_'.")


def _sql(run: Run, statement: str) -> str:
    """Run one statement as the database's administrator; return the rows."""
    code, out, err = run(["mariadb", "--batch", "--skip-column-names", "--execute", statement], None)
    if code:
        raise HpcError(f"MariaDB says: {err.strip()[-500:]}", "see that MariaDB runs on this host.")
    return str(out)


def recorded_jobs(run: Run, database: str, cluster: str) -> int:
    """Return how many jobs the accounting database has of ``cluster``."""
    _check_database(database)
    table = f"{cluster}_job_table"
    where = f"table_schema = '{database}' AND table_name = '{_quoted(table)}'"
    if not _sql(run, f"SELECT table_name FROM information_schema.tables WHERE {where}").strip():
        return 0
    return int(_sql(run, f"SELECT COUNT(*) FROM `{database}`.`{table.replace('`', '')}`").strip() or 0)


def _quoted(value: str) -> str:
    return value.replace("\\", "").replace("'", "''")


def unpack_accounting(run: Run, archive: Path, database: str) -> None:
    """Replace the accounting database by that of ``archive``. slurmdbd does not run meanwhile."""
    _check_database(database)
    dump = archive.with_name("restore.sql.gz")
    try:
        with tarfile.open(archive) as tar:
            stream = tar.extractfile("accounting.sql.gz")
            if stream is None:
                raise InvalidInput(f"{archive} has no dump in it.", "give the directory of a backup.")
            with dump.open("wb") as out:
                os.fchmod(out.fileno(), 0o600)
                shutil.copyfileobj(stream, out, 1 << 20)
        # Read as a whole first: a dump that was cut off must not cost the data that is here.
        command = (
            'set -o pipefail; gzip -t "$2" && gzip -dc "$2" | tail -n 1 | grep -q "Dump completed" && '
            'mariadb --execute "DROP DATABASE IF EXISTS \\`$1\\`" && gzip -dc "$2" | mariadb'
        )
        code, _out, err = run(["bash", "-c", command, "restore", database, str(dump)], None)
        if code:
            what = err.strip()[-500:] or "the dump is not whole"
            raise HpcError(f"The accounting database could not be restored: {what}.", "take another backup.")
    finally:
        dump.unlink(missing_ok=True)


def unpack_state(archive: Path, directory: Path, owner: tuple[int, int]) -> None:
    """Replace the controllers' state by that of ``archive``. slurmctld does not run meanwhile."""
    fresh = directory.with_name(f".{directory.name}.restored")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    try:
        with tarfile.open(archive) as tar:
            top = ""
            for member in tar:
                if member.name == "manifest.json":
                    continue
                top = top or member.name
                inside = Path(member.name).relative_to(top)
                if ".." in inside.parts or not (member.isreg() or member.isdir()):
                    raise InvalidInput(f"{archive} has {member.name!r} in it.", "it was not made by backup.yml.")
                _unpack_member(tar, member, fresh / inside, owner)
        mode = directory.stat().st_mode & 0o7777 if directory.exists() else 0o755
        fresh.chmod(mode)
        os.chown(fresh, *owner)
        # Its content is replaced, not the directory: it may be a mount point that the controllers share.
        directory.mkdir(exist_ok=True)
        for old in directory.iterdir():
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
        for new in fresh.iterdir():
            shutil.move(str(new), str(directory / new.name))
        os.chown(directory, *owner)
        directory.chmod(mode)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, place: Path, owner: tuple[int, int]) -> None:
    if member.isdir():
        place.mkdir(exist_ok=True)
    else:
        with place.open("wb") as out:
            shutil.copyfileobj(cast(IO[bytes], tar.extractfile(member)), out, 1 << 20)
    os.chown(place, *owner)
    place.chmod(member.mode & 0o777)


def begin(directory: Path, cluster: str, now: datetime | None = None) -> Path:
    """Make an empty place for a new backup of ``cluster``; those that were never completed go."""
    home = directory / cluster
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    for place in (directory, home):
        place.chmod(0o700)
    for leftover in home.glob("*.part"):
        shutil.rmtree(leftover)
    place = home / f"{(now or datetime.now(timezone.utc)).strftime(STAMP)}.part"
    place.mkdir(mode=0o700)
    return place


def complete(place: Path, keep: int) -> tuple[Path, list[str]]:
    """Give a backup that is whole its name, and remove the oldest ones but ``keep``; return both."""
    for part in PARTS:
        archive = place / f"{part}.tar"
        read_manifest(archive)
        archive.chmod(0o600)
    final = place.with_suffix("")
    place.rename(final)
    finished = sorted(item for item in final.parent.iterdir() if FINISHED.fullmatch(item.name))
    going = finished[: max(0, len(finished) - max(1, keep))]
    for old in going:
        shutil.rmtree(old)
    return final, [old.name for old in going]


def find(directory: Path, cluster: str, name: str = "") -> Path:
    """Return the backup called ``name`` (a path, or the name of a directory), or the newest one."""
    home = directory / cluster
    if name:
        place = Path(name) if Path(name).is_absolute() else home / name
        if not place.is_dir():
            raise InvalidInput(f"There is no backup {place}.", f"see what is in {home}.")
        return place
    finished = sorted(item for item in home.iterdir() if FINISHED.fullmatch(item.name)) if home.is_dir() else []
    if not finished:
        raise InvalidInput(f"There is no backup in {home}.", "make one with backup.yml, or set slurm_backup_dir.")
    return finished[-1]
