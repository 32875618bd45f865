# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The SDK of Alibaba Cloud behind two verbs: make a call, and read a list to its end. Its errors become ours here."""

from __future__ import annotations

import importlib
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .._errors import HpcError
from .base import AddressInUse, Auth, Capacity, Conflict, Exists, Invalid, NotFound, Quota, Throttled, Unknown

__all__ = ["Api", "classified", "connect_api"]

ENDPOINT = "TURNKEY_ALICLOUD_ENDPOINT"
"""Environment variable for tests: host:port of a stand-in that speaks plain HTTP."""

PRODUCTS = {"ecs": "alibabacloud_ecs20140526", "vpc": "alibabacloud_vpc20160428"}
CONNECT_MS, READ_MS = 5_000, 30_000
ECS_CHUNKED = {
    "DescribeInstances",
    "DescribeDisks",
    "DescribeSecurityGroups",
    "DescribeSecurityGroupAttribute",
    "DescribeSnapshots",
}

# The first pattern that an error code fits says what kind of error it is.
_KINDS: tuple[tuple[str, type[HpcError]], ...] = (
    (r"Throttling|.*FlowControl|.*\.Throttling", Throttled),
    (r"KeyPair\.AlreadyExist|InvalidSourceCIDR\.Duplicate", Exists),
    (r"InvalidPrivateIpAddress\.Duplicated|InvalidIPAddress\.AlreadyUsed", AddressInUse),
    (r".*\.NoStock|Zone\.NotOnSale|.*NotEnoughResource|InvalidResourceType\.NotSupported|.*IpNotEnough", Capacity),
    (r"Quota|.*LimitExceed|.*QuotaExceed|.*NotEnoughBalance|InsufficientBalance", Quota),
    (r"InvalidAccessKeyId|SignatureDoesNotMatch|IncompleteSignature|InvalidSecurityToken|Forbidden|NoPermission", Auth),
    (r".*[Uu]nauthorized|InvalidTimeStamp|MissingSecurityToken", Auth),
    # What the user named doesn't appear by waiting.
    (r"Invalid(ImageId|InstanceType|ZoneId|RegionId|Action|Version)\b", Invalid),
    (r".*NotFound|.*NotExist", NotFound),
    (r"DependencyViolation|Incorrect\w*Stat(us|e)|.*Conflict|.*(LastToken|Idempotent)Processing", Conflict),
    (r".*InUse|.*HasBeenUsedBy|.*NotEmpty|SnapshotCreatedImage", Conflict),
    (r"InternalError|ServiceUnavailable|SystemBusy|UnknownError", Unknown),
)
_REMEDIES: dict[type[HpcError], str] = {
    Auth: "Check the credentials that the SDK finds (ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET, "
    "~/.alibabacloud/credentials, or the role of this machine), and what they allow.",
    Capacity: "Use another zone or instance_type, or try again later.",
    Quota: "Have the limit of the account raised, or remove what is not needed.",
}

Again = Callable[[Callable[[], Any], tuple[type[HpcError], ...]], Any]


class Api:
    """One region's services. ``client_of`` and ``models_of`` give the SDK's client and models of a product."""

    def __init__(self, region: str, client_of: Callable[[str], Any], models_of: Callable[[str], Any]) -> None:
        """Take what connects; nothing is asked yet."""
        self._region = region
        self._client_of, self._models_of = client_of, models_of
        self.again: Again = lambda call, _on: call()
        """Repeats a single call that may be repeated, so that a long listing isn't begun anew for one lost page."""
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()

    def ecs(self, action: str, *, region: bool = True, **values: Any) -> Any:
        """Make one call of the product ECS and return the answer's body."""
        return self._call("ecs", action, region, values)

    def vpc(self, action: str, *, region: bool = True, **values: Any) -> Any:
        """Make one call of the product VPC and return the answer's body."""
        return self._call("vpc", action, region, values)

    def pages(self, product: str, action: str, size: int, **values: Any) -> list[Any]:
        """Return the whole of a list, page by page."""
        return list(self.each(product, action, size, **values))

    def each(self, product: str, action: str, size: int, **values: Any) -> Iterator[Any]:
        """Yield what is in a list. The SDK's objects are large: of a long list, keep what is needed of each."""
        if action in ECS_CHUNKED:
            token = None
            while True:
                body = self._call(product, action, True, {"max_results": size, "next_token": token, **values})
                yield from _rows(body)
                token = body.next_token
                if not token:
                    return
        number = 1
        while True:
            body = self._call(product, action, True, {"page_number": number, "page_size": size, **values})
            rows = _rows(body)
            yield from rows
            if not rows or number * size >= int(body.total_count):
                return
            number += 1

    def _call(self, product: str, action: str, region: bool, values: Mapping[str, Any]) -> Any:
        with self._lock:
            if product not in self._clients:
                self._clients[product] = self._client_of(product)
        where = {"region_id": self._region} if region else {}
        request = _model(self._models_of(product), f"{action}Request", {**where, **values})
        step = getattr(self._clients[product], re.sub(r"(?<=[a-z])(?=[A-Z])", "_", action).lower())

        def once() -> Any:
            try:
                return step(request).body
            except _sdk_errors() as error:
                raise _translated(error, action) from error

        reading = action.startswith(("Describe", "Get"))
        return self.again(once, (Throttled, Unknown) if reading else (Throttled,))


def connect_api(region: str) -> Api:
    """Return the services of a region, with the credentials that the SDK finds by itself."""
    try:
        from alibabacloud_credentials.client import Client as Credentials
        from alibabacloud_tea_openapi.utils_models import Config

        for package in PRODUCTS.values():
            importlib.import_module(package)
    except ImportError as error:
        raise HpcError(
            f"provider alicloud needs the SDK of Alibaba Cloud, and {error.name} is missing from this Python.",
            "pip install -r requirements-alicloud.txt",
        ) from error
    endpoint = os.environ.get(ENDPOINT)
    elsewhere = {"endpoint": endpoint, "protocol": "HTTP"} if endpoint else {}
    try:
        credential = Credentials()
    except _sdk_errors() as error:
        raise _translated(error, "find credentials") from error
    config = Config(
        credential=credential, region_id=region, connect_timeout=CONNECT_MS, read_timeout=READ_MS, **elsewhere
    )
    return Api(
        region,
        lambda product: importlib.import_module(f"{PRODUCTS[product]}.client").Client(config),
        lambda product: importlib.import_module(f"{PRODUCTS[product]}.models"),
    )


def classified(code: str, message: str, status: int, action: str) -> HpcError:
    """Return the error that an error code stands for."""
    kind: type[HpcError] = Unknown if status >= 500 else Invalid
    for pattern, its_kind in _KINDS:
        if re.match(pattern, code):
            kind = its_kind
            break
    text = re.sub(r"^code: \d+, ", "", message).strip().rstrip(".")
    return kind(f"Alibaba Cloud refuses {action}: {code}: {text}.", _REMEDIES.get(kind, ""))


def _sdk_errors() -> tuple[type[Exception], ...]:
    from alibabacloud_credentials.exceptions import CredentialException
    from Tea.exceptions import TeaException

    return (CredentialException, TeaException, OSError)


def _translated(error: Exception, action: str) -> HpcError:
    """Turn what the SDK raises into one of our errors."""
    code, status = getattr(error, "code", None), getattr(error, "status_code", None)
    if code and status:
        found = classified(str(code), str(getattr(error, "message", "")), int(status), action)
        if isinstance(found, Throttled):
            found.retry_after_seconds = (getattr(error, "retry_after", None) or 0) / 1000
        return found
    text = str(getattr(error, "message", None) or error)
    if "CredentialException" in f"{error!r} {text}":  # it may be wrapped in another one
        return Auth(f"no credentials for Alibaba Cloud: {text[:400]}.", _REMEDIES[Auth])
    if "NameResolutionError" in text or "Failed to resolve" in text:
        return HpcError(f"Alibaba Cloud can't be reached for {action}: {text}.", "Check the region and the network.")
    return Unknown(f"Alibaba Cloud gave no answer to {action}: {text}.")


def _model(models: Any, name: str, values: Mapping[str, Any]) -> Any:
    """Return one of the SDK's request models, with those that are in it."""
    ready = {}
    for key, value in values.items():
        part = name + "".join(word.capitalize() for word in key.split("_"))
        if isinstance(value, Mapping):
            value = _model(models, part, value)
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            value = [_model(models, part, item) for item in value]
        ready[key] = value
    return getattr(models, name)(**ready)


def _rows(body: Any) -> Sequence[Any]:
    """Return the rows of a listing: the list within the one part that has one."""
    for part in vars(body).values():
        for value in vars(part).values() if hasattr(part, "to_map") else ():
            if isinstance(value, list):
                return value
    return ()
