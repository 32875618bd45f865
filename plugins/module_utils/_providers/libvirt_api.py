# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One hypervisor, in our terms: libvirt's calls with its errors translated. It decides nothing."""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from .._errors import HpcError
from .base import Auth, Capacity, Conflict, Exists, Invalid, NotFound
from .libvirt_xml import (
    NAMESPACE,
    PREFIX,
    bridge_of,
    host_entry_xml,
    mark_of,
    mark_xml,
    path_of,
    reservations_of,
    volume_xml,
)

__all__ = ["Domain", "Hypervisor", "Network", "Pool", "connect_hypervisor"]

_CHUNK = 1 << 18


@dataclass(frozen=True)
class Domain:
    """A domain as it was found. ``state`` is running, paused, or stopped."""

    name: str
    uuid: str
    state: str
    mark: dict[str, str]
    handle: Any


@dataclass(frozen=True)
class Network:
    """A network as it was found."""

    name: str
    uuid: str
    active: bool
    bridge: str
    mark: dict[str, str]
    xml: str


class Pool:
    """A storage pool that is a directory."""

    def __init__(self, name: str, path: str, handle: Any) -> None:
        """Take the pool's name, the directory on the hypervisor, and libvirt's object."""
        self.name = name
        self.path = path
        self._handle = handle

    def start(self) -> None:
        """Start the pool, and make its directory, which somebody may have removed."""
        with translated(f"start storage pool {self.name}"):
            self._handle.build(0)
            self._handle.create()

    def free_gb(self) -> float:
        """Return the free space."""
        with translated(f"look at storage pool {self.name}"):
            return float(self._handle.info()[3] / 2**30)

    def refresh(self) -> None:
        """Look at the directory again: others write into it, too."""
        with translated(f"look at storage pool {self.name}"):
            try:
                self._handle.refresh()
                return
            except _libvirt().libvirtError:
                if self._handle.isActive():
                    raise
        self.start()  # libvirt has given it up, since it has no directory any more

    def names(self) -> list[str]:
        """Return the names of the volumes, as of the last refresh."""
        with translated(f"list storage pool {self.name}"):
            return sorted(volume.name() for volume in self._handle.listAllVolumes())

    def create(self, name: str, capacity_bytes: int, kind: str = "raw", backing: str = "") -> None:
        """Make a volume; one of that name, which an interrupted run has left, is removed first."""
        self.remove(name)
        with translated(f"make volume {name} in storage pool {self.name}"):
            self._handle.createXML(volume_xml(name, capacity_bytes, kind, backing))

    def capacity_bytes(self, name: str) -> int:
        """Return the size that a machine sees."""
        with translated(f"look at volume {name} of storage pool {self.name}"):
            return int(self._volume(name).info()[1])

    def upload(self, name: str, content: BinaryIO, length: int) -> None:
        """Fill a volume."""
        with translated(f"upload volume {name} into storage pool {self.name}"):
            volume = self._volume(name)
            stream = volume.connect().newStream(0)
            volume.upload(stream, 0, length, 0)
            try:
                stream.sendAll(lambda _stream, size, source: source.read(min(size, _CHUNK)), content)
                stream.finish()
            except Exception:
                stream.abort()
                raise

    def download(self, name: str, last_bytes: int) -> bytes:
        """Return the end of a volume, empty if there is none (yet)."""
        return self._read(name, last_bytes, from_end=True)

    def beginning(self, name: str, first_bytes: int) -> bytes:
        """Return the beginning of a volume, empty if there is none."""
        return self._read(name, first_bytes, from_end=False)

    def _read(self, name: str, most: int, from_end: bool) -> bytes:
        try:
            with translated(f"read volume {name} of storage pool {self.name}"):
                volume, received = self._volume(name), io.BytesIO()
                size = int(volume.info()[1])
                if not size:
                    return b""
                stream = volume.connect().newStream(0)
                volume.download(stream, max(0, size - most) if from_end else 0, min(size, most), 0)
                stream.recvAll(lambda _stream, data, target: target.write(data), received)
                stream.finish()
        except NotFound:
            return b""
        return received.getvalue()

    def copy(self, source: str, name: str) -> None:
        """Make a volume that is a copy of another; the hypervisor does it."""
        self.remove(name)
        with translated(f"copy volume {source} of storage pool {self.name}"):
            volume = self._volume(source)
            self._handle.createXMLFrom(volume_xml(name, int(volume.info()[1])), volume, 0)

    def flatten(self, source: str, name: str) -> None:
        """Make a volume that is a copy of a qcow2 disk and needs no other file; the hypervisor does it."""
        self.remove(name)
        with translated(f"copy volume {source} of storage pool {self.name}"):
            volume = self._volume(source)
            self._handle.createXMLFrom(volume_xml(name, int(volume.info()[1]), "qcow2"), volume, 0)
            self._handle.refresh()  # how long its file is, is known only now

    def save(self, name: str, target: BinaryIO) -> None:
        """Write a volume's file, as it is, to ``target``."""
        with translated(f"read volume {name} of storage pool {self.name}"):
            volume = self._volume(name)
            stream = volume.connect().newStream(0)
            volume.download(stream, 0, 0, 0)
            try:
                stream.recvAll(lambda _stream, data, file: file.write(data), target)
                stream.finish()
            except Exception:
                stream.abort()
                raise

    def remove(self, name: str) -> None:
        """Remove a volume; one that is gone already is fine."""
        try:
            with translated(f"remove volume {name} of storage pool {self.name}"):
                self._volume(name).delete(0)
        except NotFound:
            return

    def delete(self) -> None:
        """Remove the pool, and its directory, which must be empty."""
        with translated(f"remove storage pool {self.name}"):
            if self._handle.isActive():
                self._handle.destroy()
            self._handle.delete(0)
            self._handle.undefine()

    def _volume(self, name: str) -> Any:
        return self._handle.storageVolLookupByName(name)


class Hypervisor:
    """One connection to libvirt."""

    def __init__(self, uri: str, connection: Any) -> None:
        """Take the URI, and a ``libvirt.virConnect`` to it."""
        self.uri = uri
        self._connection = connection

    @property
    def host(self) -> str:
        """The host that SSH reaches it by, ``USER@HOST``, empty if it is this one."""
        parts = urlsplit(self.uri)
        user = f"{parts.username}@" if parts.username else ""
        return f"{user}{parts.hostname}" if parts.hostname else ""

    @property
    def port(self) -> int:
        """The port of that host's SSH server, 0 for SSH's own choice."""
        return urlsplit(self.uri).port or 0

    def on_host(self, argv: Sequence[str]) -> list[str]:
        """Return a command that does this on the hypervisor."""
        if not self.host:
            return list(argv)
        port = ["-p", str(self.port)] if self.port else []
        return ["ssh", "-o", "BatchMode=yes", *port, self.host, "--", shlex.join(argv)]

    def free_memory_mb(self) -> int:
        """Return the memory that new machines could have."""
        with translated("ask for free memory", self.uri):
            try:
                stats = self._connection.getMemoryStats(-1)
                return int(sum(stats.get(name, 0) for name in ("free", "buffers", "cached")) // 1024)
            except _libvirt().libvirtError:  # not every driver has it
                return int(self._connection.getFreeMemory() // 2**20)

    def capabilities(self) -> str:
        """Return what the hypervisor can do, as XML."""
        with translated("ask what it can do", self.uri):
            return str(self._connection.getCapabilities())

    # Domains

    def domains(self, prefix: str) -> list[Domain]:
        """Return the domains whose names begin so."""
        found = []
        with translated("list machines", self.uri):
            handles = self._connection.listAllDomains(0)
        for handle in handles:
            if not handle.name().startswith(prefix):
                continue
            try:
                found.append(self._look_at(handle))
            except NotFound:  # removed since it was listed
                continue
        return found

    def domain(self, name: str) -> Domain | None:
        """Return one domain, None if there is none."""
        try:
            with translated(f"look for machine {name}", self.uri):
                handle = self._connection.lookupByName(name)
            return self._look_at(handle)
        except NotFound:
            return None

    def _look_at(self, handle: Any) -> Domain:
        with translated(f"look at machine {handle.name()}", self.uri):
            state = _state_names().get(handle.state()[0], "stopped")
            mark = mark_of(handle.XMLDesc(_libvirt().VIR_DOMAIN_XML_INACTIVE))
        return Domain(handle.name(), handle.UUIDString(), state, mark, handle)

    def define(self, xml: str) -> None:
        """Make a domain, without starting it."""
        with translated("define a machine", self.uri):
            self._connection.defineXML(xml)

    def start(self, name: str) -> None:
        """Start a domain, or let it go on; a running one is fine."""
        with translated(f"start machine {name}", self.uri):
            handle = self._connection.lookupByName(name)
            state = _state_names().get(handle.state()[0], "stopped")
            if state == "paused":
                handle.resume()
            elif state == "stopped":
                handle.create()

    def shut_down(self, name: str) -> None:
        """Ask a domain to shut down."""
        with translated(f"shut machine {name} down", self.uri):
            handle = self._connection.lookupByName(name)
            if handle.isActive():
                handle.shutdown()

    def power_off(self, name: str) -> None:
        """Switch a domain off; one that is off is fine."""
        with translated(f"switch machine {name} off", self.uri):
            handle = self._connection.lookupByName(name)
            if handle.isActive():
                handle.destroy()

    def undefine(self, name: str) -> None:
        """Forget a domain that is off, with what libvirt keeps for it."""
        native = _libvirt()
        flags = native.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | native.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        flags |= native.VIR_DOMAIN_UNDEFINE_NVRAM
        with translated(f"remove machine {name}", self.uri):
            self._connection.lookupByName(name).undefineFlags(flags)

    def mark(self, domain: Domain, mark: dict[str, str]) -> None:
        """Change a domain's mark."""
        native = _libvirt()
        with translated(f"mark machine {domain.name}", self.uri):
            flags = native.VIR_DOMAIN_AFFECT_CONFIG | (native.VIR_DOMAIN_AFFECT_LIVE if domain.handle.isActive() else 0)
            domain.handle.setMetadata(native.VIR_DOMAIN_METADATA_ELEMENT, mark_xml(mark), PREFIX, NAMESPACE, flags)

    def run_to_end(self, xml: str) -> Any:
        """Start a domain that libvirt forgets when it ends, or when this connection does; return its handle."""
        with translated("start a passing machine", self.uri):
            return self._connection.createXML(xml, _libvirt().VIR_DOMAIN_START_AUTODESTROY)

    def save(self, name: str, path: str) -> None:
        """Write a domain's memory to a file of the hypervisor, and end the domain."""
        with translated(f"save the memory of machine {name}", self.uri):
            self._connection.lookupByName(name).save(path)

    def restore(self, path: str) -> None:
        """Start the domain whose memory is in a file of the hypervisor."""
        with translated(f"restore the memory in {path}", self.uri):
            self._connection.restore(path)

    def plug_in(self, domain: Domain, xml: str) -> None:
        """Give a running domain a device, which its definition has already."""
        with translated(f"plug a device into machine {domain.name}", self.uri):
            domain.handle.attachDeviceFlags(xml, _libvirt().VIR_DOMAIN_AFFECT_LIVE)

    def addresses(self, domain: Domain) -> dict[str, list[str]]:
        """Return the IPv4 addresses of a running domain by MAC, as its agent says, else as seen in ARP."""
        native = _libvirt()
        for source in (native.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT, native.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP):
            try:
                with translated(f"ask for the addresses of {domain.name}", self.uri):
                    found = domain.handle.interfaceAddresses(source)
            except HpcError:  # no agent, or none that answers
                continue
            rows = {
                str(nic["hwaddr"]): [str(item["addr"]) for item in nic["addrs"] or () if item["type"] == 0]
                for nic in found.values()
                if nic.get("hwaddr")
            }
            if any(rows.values()):
                return rows
        return {}

    # Networks

    def networks(self) -> list[Network]:
        """Return all networks."""
        found = []
        with translated("list networks", self.uri):
            for handle in self._connection.listAllNetworks(0):
                xml = handle.XMLDesc(0)
                active, bridge = bool(handle.isActive()), bridge_of(xml)
                found.append(Network(handle.name(), handle.UUIDString(), active, bridge, mark_of(xml), xml))
        return found

    def create_network(self, xml: str) -> None:
        """Make a network and start it, now and with the host."""
        with translated("make a network", self.uri):
            handle = self._connection.networkDefineXML(xml)
            try:
                handle.create()
                handle.setAutostart(1)
            except _libvirt().libvirtError:
                _give_up(handle)
                raise

    def start_network(self, name: str) -> None:
        """Start a network; a running one is fine."""
        with translated(f"start network {name}", self.uri):
            handle = self._connection.networkLookupByName(name)
            if not handle.isActive():
                handle.create()

    def remove_network(self, name: str) -> None:
        """Stop and remove a network; one that is gone already is fine."""
        try:
            with translated(f"remove network {name}", self.uri):
                _give_up(self._connection.networkLookupByName(name))
        except NotFound:  # one without a definition goes when it stops
            return

    def reserve(self, network: str, entry: dict[str, str], first: bool) -> None:
        """Keep an address for a machine; in a network that gives none so far only if this may be the ``first``."""
        with translated(f"enter {entry['mac']} into network {network}", self.uri):
            handle = self._connection.networkLookupByName(network)
            kept = {flag: reservations_of(xml) for flag, xml in _definitions(handle)}
            lacking = {
                flag: rows for flag, rows in kept.items() if entry not in (rows or ()) and (first or rows is not None)
            }
            self._forget(handle, lacking, entry["mac"])
            self._change(handle, _libvirt().VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, entry, lacking)

    def release(self, network: str, mac: str) -> None:
        """Keep the address of a machine no longer."""
        try:
            with translated(f"remove {mac} from network {network}", self.uri):
                handle = self._connection.networkLookupByName(network)
                self._forget(handle, {flag: reservations_of(xml) for flag, xml in _definitions(handle)}, mac)
        except NotFound:
            return

    def _forget(self, handle: Any, kept: dict[int, list[dict[str, str]] | None], mac: str) -> None:
        holding = [flag for flag, rows in kept.items() if any(row.get("mac") == mac for row in rows or ())]
        self._change(handle, _libvirt().VIR_NETWORK_UPDATE_COMMAND_DELETE, {"mac": mac}, holding)

    def _change(self, handle: Any, command: int, entry: dict[str, str], flags: Iterable[int]) -> None:
        if total := sum(flags):
            section = _libvirt().VIR_NETWORK_SECTION_IP_DHCP_HOST
            handle.update(command, section, -1, host_entry_xml(entry), total)

    def leases(self, network: str) -> dict[str, str]:
        """Return the addresses by MAC that a network has given; empty where it gives none."""
        try:
            with translated(f"list the leases of network {network}", self.uri):
                rows = self._connection.networkLookupByName(network).DHCPLeases()
        except HpcError:
            return {}
        return {str(row["mac"]): str(row["ipaddr"]) for row in rows if row.get("mac")}

    # Storage

    def pool(self, uuid: str, start: bool = True) -> Pool | None:
        """Return the storage pool with this identifier, or None. It runs unless that is of no interest."""
        try:
            with translated("look for a storage pool", self.uri):
                handle = self._connection.storagePoolLookupByUUIDString(uuid)
                pool, active = Pool(handle.name(), path_of(handle.XMLDesc(0)), handle), handle.isActive()
        except NotFound:
            return None
        if start and not active:
            pool.start()
        return pool

    def pool_names(self) -> list[str]:
        """Return the names of all storage pools."""
        with translated("list storage pools", self.uri):
            return [handle.name() for handle in self._connection.listAllStoragePools(0)]

    def create_pool(self, xml: str) -> None:
        """Make a storage pool and its directory, and start it, now and with the host."""
        with translated("make a storage pool", self.uri):
            handle = self._connection.storagePoolDefineXML(xml)
            try:
                handle.build(0)
                handle.create()
                handle.setAutostart(1)
            except _libvirt().libvirtError:
                _give_up(handle)
                raise


def _give_up(handle: Any) -> None:
    """Stop a network or a storage pool, and forget it, so that no later run takes it for one that works."""
    if handle.isActive():
        handle.destroy()
    handle.undefine()


def connect_hypervisor(uri: str) -> Hypervisor:
    """Connect to a hypervisor, or say clearly why that fails."""
    native = _libvirt()
    try:
        connection = native.open(uri)
    except native.libvirtError as error:
        text = str(error).rstrip(".")
        refused = (native.VIR_ERR_AUTH_FAILED, native.VIR_ERR_AUTH_CANCELLED, native.VIR_ERR_AUTH_UNAVAILABLE)
        if error.get_error_code() in refused:
            raise Auth(
                f"hypervisor {uri} doesn't let you in: {text}.", "Join its group libvirt, or use root."
            ) from error
        raise HpcError(
            f"hypervisor {uri} can't be reached: {text}.",
            f"See that libvirtd runs there and that this works: virsh -c {uri} list",
        ) from error
    return Hypervisor(uri, connection)


def _libvirt() -> Any:
    """Return the module; what it prints to stderr of each error is in the exception, too."""
    try:
        import libvirt
    except ImportError as error:
        raise HpcError(
            f"The Python package 'libvirt' is missing in {sys.executable} ({error}).",
            f"Install it: apt-get install libvirt-dev pkg-config gcc python3-dev; {sys.executable} -m pip install "
            "-r requirements-libvirt.txt",
        ) from error
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    return libvirt


def _state_names() -> dict[int, str]:
    native = _libvirt()
    running = (native.VIR_DOMAIN_RUNNING, native.VIR_DOMAIN_BLOCKED, native.VIR_DOMAIN_SHUTDOWN)
    paused = (native.VIR_DOMAIN_PAUSED, native.VIR_DOMAIN_PMSUSPENDED)
    return {**dict.fromkeys(running, "running"), **dict.fromkeys(paused, "paused")}


def _definitions(handle: Any) -> list[tuple[int, str]]:
    """Return what a network is now and what it will be after its next start, each with the flag to change it."""
    native = _libvirt()
    found = [(native.VIR_NETWORK_UPDATE_AFFECT_LIVE, handle.XMLDesc(0))] if handle.isActive() else []
    if handle.isPersistent():
        try:
            later = handle.XMLDesc(native.VIR_NETWORK_XML_INACTIVE)
        except native.libvirtError:  # the driver for tests tells them apart in changes only
            later = handle.XMLDesc(0)
        found.append((native.VIR_NETWORK_UPDATE_AFFECT_CONFIG, later))
    return found


@contextmanager
def translated(what: str, where: str = "") -> Iterator[None]:
    """Turn libvirt's errors into ours."""
    native = _libvirt()
    try:
        yield
    except native.libvirtError as error:
        raise classified(native, error, f"could not {what}{f' on {where}' if where else ''}") from error


def classified(native: Any, error: Any, what: str) -> HpcError:
    """Return our error for one of libvirt's."""
    code = error.get_error_code()
    text = str(error).strip().rstrip(".")
    message = f"{what}: {text}."
    if code in (
        native.VIR_ERR_NO_DOMAIN,
        native.VIR_ERR_NO_NETWORK,
        native.VIR_ERR_NO_STORAGE_POOL,
        native.VIR_ERR_NO_STORAGE_VOL,
    ):
        return NotFound(message)
    if "No space left on device" in text:
        return Capacity(message, "Make room on the hypervisor's disk, or use another cluster_libvirt.directory.")
    if "Cannot allocate memory" in text or "cannot set up guest memory" in text:
        return Capacity(message, "Stop other machines of that hypervisor, or choose a smaller kind.")
    if code in (native.VIR_ERR_DOM_EXIST, native.VIR_ERR_NETWORK_EXIST, native.VIR_ERR_STORAGE_VOL_EXIST):
        return Exists(message)
    if code in (native.VIR_ERR_AUTH_FAILED, native.VIR_ERR_OPERATION_DENIED, native.VIR_ERR_ACCESS_DENIED):
        return Auth(message)
    if code in (native.VIR_ERR_OPERATION_INVALID, native.VIR_ERR_RESOURCE_BUSY, native.VIR_ERR_OPERATION_TIMEOUT):
        return Conflict(message)
    if code in (native.VIR_ERR_XML_ERROR, native.VIR_ERR_CONFIG_UNSUPPORTED, native.VIR_ERR_INVALID_ARG):
        return Invalid(message)
    return HpcError(message)
