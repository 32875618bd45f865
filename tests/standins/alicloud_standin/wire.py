# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP and signatures: what every call must get right before a service looks at it."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
import threading
import urllib.parse
import uuid
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .faults import Fault, Faults
from .schema import Refused, check_answer, parsed
from .service import Account, Clock, Limits

ACCESS_KEY_ID = "standin-key-id"
ACCESS_KEY_SECRET = "standin-key-secret"
SKEW = datetime.timedelta(minutes=15)
ALGORITHM = "ACS3-HMAC-SHA256"


class StandIn:
    """The server. Use it as a context manager; ``account`` is what a test looks at."""

    def __init__(
        self, port: int = 0, *, faults: Faults | None = None, clock: Clock | None = None, limits: Limits | None = None
    ) -> None:
        self.faults = faults or Faults()
        self.account = Account(clock or Clock(), limits or Limits(), self._delay)
        self.calls: Counter[str] = Counter()
        self.log: list[tuple[str, dict[str, Any], str]] = []
        self.broken: list[str] = []
        self._nonces: set[str] = set()
        self._lock = threading.Lock()
        standin = self

        class Handler(_Handler):
            server_side = standin

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self.endpoint = f"127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> StandIn:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _delay(self, what: str) -> int:
        return self.faults.delay(what)

    def serve_forever(self) -> None:
        """Serve in this thread, until interrupted."""
        self._server.serve_forever()

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> tuple[int, dict[str, Any]] | None:
        """Return status and answer of one call; None is: close the connection without a word."""
        with self._lock:
            request_id = str(uuid.uuid4()).upper()
            action, version = headers.get("x-acs-action", ""), headers.get("x-acs-version", "")
            flat: dict[str, str] = {}
            outcome = "ok"
            try:
                flat = self._verified(method, target, headers, body)
                fault = self.faults.next(action)
                if fault is Fault.DROPPED:
                    outcome = fault.value
                    return None
                values = parsed(version, action, flat)
                result = {"RequestId": request_id, **self._done(version, action, values, fault)}
                check_answer(version, action, result)
                if self.faults.time_to_die():
                    outcome = "killed"
                    if self.faults.killer:
                        self.faults.killer()
                    return None
                if fault is Fault.LOST_REPLY:
                    outcome = fault.value
                    return None
                if fault is Fault.FAILED_REPLY:
                    raise Refused("InternalError", "The request processing has failed.", 500)
                return 200, result
            except Refused as error:
                outcome = error.code
                return error.status, {
                    "Code": error.code,
                    "Message": error.message,
                    "RequestId": request_id,
                    "HostId": "standin",
                }
            except (
                AttributeError,
                LookupError,
                TypeError,
                ValueError,
                AssertionError,
            ) as error:  # the stand-in's own fault, for all to see
                outcome = repr(error)
                self.broken.append(f"{action}: {error!r}")
                return 400, {"Code": "StandInBroken", "Message": repr(error), "RequestId": request_id}
            finally:
                self.calls[action] += 1
                self.log.append((action, flat, outcome))
                self.account.clock.tick()

    def _done(self, version: str, action: str, values: dict[str, Any], fault: Fault | None) -> dict[str, Any]:
        if fault is Fault.THROTTLED:
            raise Refused("Throttling.User", "Request was denied due to user flow control.")
        if fault is Fault.UNAVAILABLE:
            raise Refused("ServiceUnavailable", "The request has failed due to a temporary failure.", 503)
        stock = None
        if fault is Fault.NO_STOCK:
            stock = 0
        if fault is Fault.PARTIAL:
            stock = max(1, int(values.get("Amount", 1)) // 2)
        return self.account.call(version, action, values, stock)

    def _verified(self, method: str, target: str, headers: Any, body: bytes) -> dict[str, str]:
        """Check key, signature, date and nonce; return the parameters."""
        scheme, _space, rest = headers.get("Authorization", "").partition(" ")
        parts = dict(part.split("=", 1) for part in rest.split(",") if "=" in part)
        if scheme != ALGORITHM or not {"Credential", "SignedHeaders", "Signature"} <= set(parts):
            raise Refused("IncompleteSignature", f"Authorization must be {ALGORITHM} with its three parts")
        if parts["Credential"] != ACCESS_KEY_ID:
            raise Refused("InvalidAccessKeyId.NotFound", "Specified access key is not found.", 404)
        path, _question, query = target.partition("?")
        flat = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        signed = parts["SignedHeaders"].split(";")
        if signed != sorted(signed) or "x-acs-signature-nonce" not in signed or "host" not in signed:
            raise Refused("IncompleteSignature", f"signed headers are {signed}")
        digest = hashlib.sha256(body).hexdigest()
        if headers.get("x-acs-content-sha256") != digest:
            raise Refused("SignatureDoesNotMatch", "x-acs-content-sha256 is not that of the body")
        canonical = "\n".join(
            [
                method,
                path,
                "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in sorted(flat.items())),
                *(f"{name}:{(headers.get(name) or '').strip()}" for name in signed),
                "",
                ";".join(signed),
                digest,
            ]
        )
        to_sign = f"{ALGORITHM}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = hmac.new(ACCESS_KEY_SECRET.encode(), to_sign.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(signature, parts["Signature"]):
            raise Refused("SignatureDoesNotMatch", "The request signature does not conform to Aliyun standards.")
        try:
            date = datetime.datetime.strptime(headers["x-acs-date"], "%Y-%m-%dT%H:%M:%SZ")
        except (TypeError, ValueError):
            raise Refused("InvalidTimeStamp.Format", f"x-acs-date is {headers.get('x-acs-date')!r}") from None
        if abs(datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None) - date) > SKEW:
            raise Refused("InvalidTimeStamp.Expired", "Specified time stamp is expired.")
        nonce = headers["x-acs-signature-nonce"]
        if nonce in self._nonces:
            raise Refused("SignatureNonceUsed", "Specified signature nonce was used already.")
        self._nonces.add(nonce)
        return flat


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_side: StandIn

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        done = self.server_side.answer("POST", self.path, self.headers, body)
        if done is None:
            self.close_connection = True
            return
        status, answer = done
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json;charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_arguments: object) -> None:
        """Keep the test's output clean; ``StandIn.log`` has it all."""


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="-_.~")
