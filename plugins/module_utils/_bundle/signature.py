# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The key of a bundle, and what it signs: manifest and package lists. It is OpenPGP's, as APT knows nothing else."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._state import Run, write_atomically

__all__ = ["Signer", "fingerprint_of", "make_key", "normal_fingerprint", "signer", "verify"]

SECRET, FINGERPRINT = "key.asc", "fingerprint"


def normal_fingerprint(text: str) -> str:
    """Return a fingerprint as 40 capital hexadecimal digits."""
    found = re.sub(r"\s", "", text).upper()
    if not re.fullmatch(r"[0-9A-F]{40}", found):
        raise InvalidInput(f"{text!r} is no fingerprint of a key.", "give the 40 digits that bundle.yml showed.")
    return found


@contextmanager
def _home(run: Run) -> Iterator[list[str]]:
    """Give a directory of gpg's own, below /tmp as the path of its agent's socket may not be long."""
    with tempfile.TemporaryDirectory(prefix="turnkey-gpg-") as home:
        try:
            yield ["gpg", "--homedir", home, "--batch", "--no-tty", "--quiet"]
        finally:
            run(["gpgconf", "--homedir", home, "--kill", "all"], None)


def _call(run: Run, argv: list[str], stdin: str | None = None) -> str:
    code, out, err = run(argv, stdin)
    if code == 127:
        raise HpcError("There is no program gpg on the control node.", "apt-get install gpg gpg-agent")
    if code != 0:
        raise HpcError(f"gpg failed: {err.strip() or out.strip()}")
    return out if isinstance(out, str) else bytes(out).decode()


def fingerprint_of(directory: Path) -> str:
    """Return the fingerprint of the key in ``directory``, or nothing."""
    path = directory / FINGERPRINT
    return normal_fingerprint(path.read_text(encoding="ascii")) if path.exists() else ""


def make_key(run: Run, directory: Path, cluster: str) -> str:
    """Make the key in ``directory`` unless it is there; return its fingerprint."""
    if (directory / SECRET).exists() and fingerprint_of(directory):
        return fingerprint_of(directory)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _home(run) as gpg:
        user = f"turnkey.hpc bundle of {cluster}"
        _call(run, [*gpg, "--passphrase", "", "--quick-generate-key", user, "ed25519", "sign", "never"])
        listed = _call(run, [*gpg, "--with-colons", "--list-secret-keys"])
        found = re.search(r"^fpr:(?:[^:]*:){8}([0-9A-F]{40}):", listed, re.MULTILINE)
        if not found:
            raise HpcError(f"gpg listed no key after it made one: {listed!r}.")
        secret = _call(run, [*gpg, "--armor", "--export-secret-keys", found[1]])
        write_atomically(directory / SECRET, secret.encode(), 0o600)
        write_atomically(directory / FINGERPRINT, f"{found[1]}\n".encode(), 0o644)
    return found[1]


class Signer:
    """Signs with one key."""

    def __init__(self, run: Run, gpg: list[str], fingerprint: str) -> None:
        """Take gpg with a home that has the key."""
        self.run = run
        self.gpg = [*gpg, "--local-user", f"{fingerprint}!", "--digest-algo", "SHA512"]

    def detached(self, text: str) -> str:
        """Return the signature of ``text``."""
        return _call(self.run, [*self.gpg, "--armor", "--detach-sign"], text)

    def inline(self, text: str) -> str:
        """Return ``text`` with its signature around it."""
        return _call(self.run, [*self.gpg, "--clear-sign"], text)

    def public(self) -> str:
        """Return the public half of the key."""
        return _call(self.run, [*self.gpg, "--armor", "--export", self.gpg[-3].rstrip("!")])


@contextmanager
def signer(run: Run, directory: Path) -> Iterator[Signer]:
    """Give what signs with the key in ``directory``."""
    with _home(run) as gpg:
        _call(run, [*gpg, "--import", str(directory / SECRET)])
        yield Signer(run, gpg, fingerprint_of(directory))


def verify(run: Run, signed: Path, signature: Path, key: Path, fingerprint: str) -> None:
    """Refuse what the key with this fingerprint did not sign."""
    remedy = "bring over the whole bundle once more, from those whose key it is."
    for path in (signed, signature, key):
        if path.is_symlink() or not path.is_file():
            raise InvalidInput(f"There is no file {path}.", remedy)
    with _home(run) as gpg:
        code, out, err = run([*gpg, "--import", str(key)], None)
        if code == 127:
            raise HpcError("There is no program gpg on the control node.", "apt-get install gpg")
        if code != 0:
            raise InvalidInput(f"{key} is no public key ({err.strip()}).", remedy)
        code, out, err = run([*gpg, "--status-fd", "1", "--verify", str(signature), str(signed)], None)
    # The last field is the primary key's fingerprint.
    found = re.search(r"^\[GNUPG:\] VALIDSIG (?:\S+ ){9}([0-9A-F]{40})$", out, re.MULTILINE)
    if code != 0 or not found:
        raise InvalidInput(f"{signature} is not the signature of {signed} by {key}.", remedy)
    if found[1] != fingerprint:
        raise InvalidInput(
            f"{signed} was signed by the key {found[1]}, not by {fingerprint}.",
            "find out who made it; if you trust that key, set mirror_bundle_fingerprint to it.",
        )
