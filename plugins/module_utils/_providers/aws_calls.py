# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client of EC2, and its errors in our classes. Only this file knows how boto3 fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .._errors import HpcError
from .base import AddressInUse, Auth, Capacity, Conflict, Exists, Invalid, NotFound, Quota, Throttled, Unknown

__all__ = ["classify", "connect_ec2", "translated"]

PACKAGE = "boto3"

_THROTTLED = frozenset(
    {
        "BandwidthLimitExceeded",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_AUTH = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthFailure",
        "Blocked",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "MissingAuthenticationToken",
        "OptInRequired",
        "PendingVerification",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnauthorizedOperation",
        "UnrecognizedClientException",
    }
)
_EXISTS = frozenset({"InvalidSubnet.Conflict", "Resource.AlreadyAssociated", "RouteAlreadyExists", "VolumeInUse"})
_CONFLICT = frozenset(
    {"DependencyViolation", "IncorrectInstanceState", "IncorrectState", "IncorrectVpcState", "InvalidState"}
)
_UNKNOWN = frozenset({"InternalError", "InternalFailure", "InternalServiceException", "ServiceUnavailable"})
_NOT_FOUND = frozenset({"Gateway.NotAttached", "InvalidPlacementGroup.Unknown", "NatGatewayNotFound"})


def connect_ec2(region: str, read_timeout_seconds: int = 60) -> Any:
    """Return a client of EC2. Credentials come from where boto3 looks for them, and from nowhere else."""
    try:
        import boto3
        import botocore.config
        import botocore.exceptions
    except ImportError as error:
        raise HpcError(
            f"The Python package '{PACKAGE}' is missing in {sys.executable} ({error}).",
            f"Install it: {sys.executable} -m pip install {PACKAGE} (or -r requirements-aws.txt)",
        ) from error
    # A repetition that botocore made itself would create things twice where a reply was lost: repeating is ours.
    config = botocore.config.Config(
        region_name=region,
        retries={"total_max_attempts": 1, "mode": "standard"},
        connect_timeout=10,
        read_timeout=read_timeout_seconds,
        max_pool_connections=8,
        user_agent_extra="turnkey.hpc",
    )
    try:
        # Debian 12's boto3 doesn't know the variable yet.
        endpoint = os.environ.get("AWS_ENDPOINT_URL_EC2") or os.environ.get("AWS_ENDPOINT_URL")
        return boto3.session.Session().client("ec2", config=config, endpoint_url=endpoint or None)
    except botocore.exceptions.BotoCoreError as error:
        raise Auth(f"No connection to AWS: {error}.", "Check AWS_PROFILE and ~/.aws/config.") from error


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn the SDK's errors into ours."""
    import botocore.exceptions as errors
    from botocore.parsers import ResponseParserError

    try:
        yield
    except errors.ClientError as error:
        answer = error.response
        raise classify(
            str(answer.get("Error", {}).get("Code", "")),
            str(answer.get("Error", {}).get("Message", "")),
            int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)),
            what,
        ) from error
    except (
        errors.NoCredentialsError,
        errors.PartialCredentialsError,
        errors.CredentialRetrievalError,
        errors.TokenRetrievalError,
        errors.SSOError,
    ) as error:
        raise Auth(
            f"could not {what}: {error}.",
            "Give credentials the way the aws command gets them: AWS_PROFILE, AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, 'aws sso login', or the role of the instance.",
        ) from error
    except (errors.EndpointConnectionError, errors.ConnectTimeoutError, errors.ProxyConnectionError) as error:
        raise HpcError(f"could not {what}: {error}.", "Check the network, the region and the proxy.") from error
    except (errors.HTTPClientError, errors.ConnectionError, ResponseParserError) as error:
        raise Unknown(f"could not {what}: no proper answer ({error}).") from error
    except errors.BotoCoreError as error:
        raise HpcError(f"could not {what}: {error}.") from error


def classify(code: str, message: str, status: int, what: str) -> HpcError:
    """Return our error for one of EC2's."""
    text = f"could not {what}: {message.strip()[:500].rstrip('.')} ({code})."
    if code in _THROTTLED:
        return Throttled(text)
    if code in _AUTH:
        return Auth(text, "Check the credentials and their owner's rights: docs/aws.md has the list.")
    if code in _EXISTS or code.endswith((".Duplicate", "AlreadyExists")):
        return Exists(text, "If it isn't this cluster's, remove it or choose another cluster_name.")
    if code == "InvalidIPAddress.InUse" and "launch" in what:
        return AddressInUse(text)
    if code in _CONFLICT or code.endswith((".InUse", ".NotReady")):
        return Conflict(text)
    if code in _NOT_FOUND or code.endswith(".NotFound"):
        return NotFound(text)
    if code.startswith("Insufficient") or code == "MaxSpotInstanceCountExceeded":
        return Capacity(text, "Try again later, another instance_type, or another zone.")
    if code.endswith("LimitExceeded"):
        return Quota(text, "Ask AWS for a higher quota, or make the cluster smaller.")
    if code in _UNKNOWN or status >= 500:
        return Unknown(text)
    return Invalid(text)
