# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container registry: its account, and the images of a bundle that it lacks. Runs on the registry's host."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.manifest import MANIFEST, File, parse
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.tree import digest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._state import Run

__all__ = ["Load", "Registry", "account_line", "images_of", "plan", "repository"]

# What skopeo notes for root about images that it has seen.
CACHE = Path("/var/lib/containers/cache/blob-info-cache-v1.boltdb")
# What skopeo says of an image that the registry has not.
ABSENT = re.compile(r"manifest unknown|name unknown|not found", re.IGNORECASE)


@dataclass(frozen=True)
class Load:
    """An image to load: its file, what it is called in the registry, and the digest that it takes the place of."""

    file: File
    name: str
    replaced: str = ""


def repository(reference: str) -> str:
    """Return what an image is called in the registry: its name without the host of the registry that it came from."""
    first, slash, rest = reference.partition("/")
    is_host = slash and ("." in first or ":" in first or first == "localhost")
    return rest if is_host else reference


def plan(files: Sequence[File], there: dict[str, str]) -> list[Load]:
    """Return what to load, with ``there`` the digest of each name that the registry has."""
    loads = []
    for file in files:
        name = repository(file.reference)
        if there.get(name, "") != file.digest:
            loads.append(Load(file, name, there.get(name, "")))
    return loads


def images_of(bundle: Path) -> list[File]:
    """Return the images in a copy of a bundle."""
    try:
        text = (bundle / MANIFEST).read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"{bundle} has no bundle: {error.strerror}.", "run the role mirror first.") from error
    return parse(text, str(bundle / MANIFEST)).of("image")


def account_line(run: Run, text: str, name: str, password: str, path: Path) -> str:
    """Return the file's new text: the line that is there if it fits the password, else one with a new hash."""
    lines = text.splitlines()
    if len(lines) == 1 and lines[0].startswith(f"{name}:$2y$"):
        code, _out, _err = run(["htpasswd", "-vi", str(path), name], password)
        if code == 0:
            return text
    # -B: bcrypt, the only hash that docker-registry takes; -i: the password comes by standard input.
    code, out, err = run(["htpasswd", "-niB", "-C", "10", name], password)
    if code != 0:
        raise HpcError(f"htpasswd failed: {err.strip()}")
    return (out if isinstance(out, str) else bytes(out).decode()).strip() + "\n"


class Registry:
    """The registry at ``address`` as skopeo sees it."""

    def __init__(self, run: Run, address: str, folder: Path) -> None:
        """Use ``folder``, which ``access`` has filled."""
        self.run, self.address, self.folder = run, address, folder

    @classmethod
    @contextmanager
    def access(cls, run: Run, address: str, user: str, password: str, ca: Path) -> Iterator[Registry]:
        """Give access with a password that is in no argument list."""
        with tempfile.TemporaryDirectory(prefix="turnkey-registry-") as folder:
            pair = base64.b64encode(f"{user}:{password}".encode()).decode()
            auth = Path(folder, "auth.json")
            auth.touch(mode=0o600)
            auth.write_text(json.dumps({"auths": {address: {"auth": pair}}}), encoding="utf-8")
            Path(folder, "certs").mkdir()
            Path(folder, "certs", "ca.crt").write_bytes(ca.read_bytes())
            cached = CACHE.exists()
            try:
                yield cls(run, address, Path(folder))
            finally:
                if not cached:
                    CACHE.unlink(missing_ok=True)
                    for directory in (CACHE.parent, CACHE.parent.parent):
                        if directory.is_dir() and not any(directory.iterdir()):
                            directory.rmdir()

    def _skopeo(self, verb: str, *argv: str, side: str = "") -> tuple[int, str, str]:
        options = ["--authfile", str(self.folder / "auth.json"), f"--{side}cert-dir", str(self.folder / "certs")]
        result: tuple[int, str, str] = self.run(["skopeo", verb, *options, *argv], None)
        return result

    def digest(self, name: str) -> str:
        """Return the digest of an image, or nothing if the registry has not got it."""
        code, out, err = self._skopeo("inspect", "--raw", f"docker://{self.address}/{name}")
        if code == 0:
            return f"sha256:{hashlib.sha256(out if isinstance(out, bytes) else out.encode()).hexdigest()}"
        if ABSENT.search(err):
            return ""
        raise HpcError(
            f"The registry {self.address} does not answer: {err.strip()[-400:]}",
            "see 'journalctl -u docker-registry' on its host.",
        )

    def load(self, bundle: Path, load: Load) -> None:
        """Load an image, whose file is checked once more."""
        path = bundle / load.file.path
        if digest(path) != load.file.sha256:
            raise HpcError(f"{path} was altered.", "run the role mirror, which brings it once more.")
        target = f"docker://{self.address}/{load.name}"
        code, _out, err = self._skopeo(
            "copy", "--quiet", "--all", "--preserve-digests", f"oci-archive:{path}", target, side="dest-"
        )
        if code != 0:
            raise HpcError(f"{load.name} can't be loaded: {err.strip()[-400:]}")
        found = self.digest(load.name)
        if found != load.file.digest:
            raise HpcError(f"{load.name} has the digest {found} in the registry, not {load.file.digest}.")
        if load.replaced:
            # What it took the place of goes with the next collection of garbage, unless another name refers to it.
            self._skopeo("delete", f"docker://{self.address}/{re.sub('[:@].*', '', load.name)}@{load.replaced}")
