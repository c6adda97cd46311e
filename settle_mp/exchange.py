"""One HTTP exchange: bounded in time and size, ended by an answer or by what kept it from coming.

Rule 1: what happens on the way does not raise; it is a NoReply, which says whether the request may have been
    applied.
Rule 2: "not sent" is proven, not guessed from the kind of error: httpx reports when it is about to write.
Rule 3: one deadline and one size bound the whole answer, however slowly it comes.
Rule 4: nothing is repeated and no redirect followed: what is done next is the caller's decision.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import zlib
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Final

import httpx

from settle_mp.core.answer import Failure, NoReply, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

#: Bytes read of an answer; the longest that the vendor documents is a page of a wallet's history.
ANSWER_BYTES_MAX: Final = 1024 * 1024
#: Seconds that an idle connection is kept. Servers close theirs after 5 (uvicorn, Node), and a request that
#: meets this closing is in doubt: nobody can know whether the server had read it.
KEEPALIVE_S: Final = 3.0
#: Idle connections kept: as many as a collector has senders.
_LANES_KEPT_MAX: Final = 4

#: Headers of every request.
HEADERS: Final = {"User-Agent": "settle-mp", "Accept": "application/json", "Accept-Encoding": "identity"}

#: What the network, TLS or the other side can do to a request. A name with a label of more than 63 letters
#: fails in Python's codec, before the resolver.
ERRORS: Final = (httpx.HTTPError, OSError, UnicodeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A status with what could be read of its body.

    Attributes:
        status: The HTTP status.
        headers: All headers, found by names in any case.
        body: The body without compression; empty when it is not whole.
        is_whole: False when the body was too long, too slow or broke off.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_whole: bool


class _Lane:
    """A client with one connection at most, used by one try at a time: so the newest stream is the try's."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.stream: Any = None


class _Watch:
    """Watches one try from inside httpx: whether its first byte has left, and until when it may last.

    httpx bounds each read and not the whole answer, so a server that sends a byte a second, of the headers
    even, would hold a sender for hours. At the deadline a timer shuts the connection down: the read ends.
    """

    def __init__(self, lane: _Lane, timeout_s: float) -> None:
        self.is_begun = False
        self.is_body_sent = False
        self.is_overdue = False
        self._is_over = False
        self._lane = lane
        self._lock = threading.Lock()
        self._timer = threading.Timer(timeout_s, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> None:
        try:
            self._timer.start()
        except (
            RuntimeError
        ) as error:  # the system has no thread left: it is as short of them as of descriptors
            raise OSError(str(error)) from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:  # from here on the connection may be another try's
            self._is_over = True

    def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        """Take note of a trace event (httpx: extensions, "trace"); called in the thread that sends."""
        step = event.partition(".")[2]
        if step in {"connect_tcp.complete", "start_tls.complete"}:
            with self._lock:
                self._lane.stream = info["return_value"]
        elif step == "send_request_headers.started" and info["request"].method != b"CONNECT":
            with self._lock:
                if self.is_overdue:
                    raise httpx.ConnectTimeout("the time for the whole try was up")
                self.is_begun = True
        elif step == "send_request_headers.failed":
            # The head did not leave whole and the body not at all, so no server can have applied it.
            self.is_begun = False
        elif step == "send_request_body.complete":
            self.is_body_sent = True

    def _cut(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            if self._is_over:
                return
            self.is_overdue = True
            if self._lane.stream is not None:
                # Not SSLSocket's own, which forgets the TLS state that the other thread is reading with.
                socket.socket.shutdown(self._lane.stream.get_extra_info("socket"), socket.SHUT_RDWR)


class Exchanges:
    """Does HTTP exchanges for any number of threads at once, over connections that it keeps for a while.

    Proxies and certificates are those that httpx reads from the environment.

    Args:
        connect_timeout_s: Seconds for a connection, TLS included, to each address that the name has.
        try_timeout_s: Seconds from the start to the end of the body. (The look-up of a name cannot be
            interrupted; the system's resolver bounds it.)

    Raises:
        ValueError: If the proxies or certificates that the environment names can't be used.
    """

    def __init__(self, *, connect_timeout_s: float, try_timeout_s: float) -> None:
        self._timeout = httpx.Timeout(try_timeout_s, connect=min(connect_timeout_s, try_timeout_s))
        self._lock = threading.Lock()
        self._is_closed = False
        with environment_checked():
            self._tls = httpx.create_ssl_context()
            self._lanes = [self._open_lane()]

    def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        timeout_s: float | None = None,
    ) -> Received | NoReply:
        """Send one request, once, with exactly this body.

        Args:
            method: GET or POST.
            url: The whole address, valid.
            headers: Headers to send besides those of every request.
            body: The bytes to send.
            timeout_s: Seconds for this one, where it has fewer than others.
        """
        lane = self._take_lane()
        timeout = self._timeout if timeout_s is None else bounded(timeout_s, self._timeout)
        watch = _Watch(lane, timeout.read or 0.0)
        try:
            request = lane.client.build_request(
                method, url, content=body, headers=headers, timeout=timeout, extensions={"trace": watch}
            )
            with watch, contextlib.closing(lane.client.send(request, stream=True)) as response:
                content, is_whole = _read_body(response)
        except ERRORS as error:
            return no_reply(error, is_begun=watch.is_begun, is_overdue=watch.is_overdue)
        finally:
            self._return_lane(lane)
        if response.is_success and not watch.is_body_sent:
            return too_early(response.status_code)
        return Received(
            status=response.status_code,
            headers=response.headers,
            body=content,
            is_whole=is_whole and not watch.is_overdue,
        )

    def close(self) -> None:
        """Close the idle connections. An exchange that runs or is to come ends and closes its own."""
        with self._lock:
            self._is_closed = True
            lanes, self._lanes = self._lanes, []
        for lane in lanes:
            lane.client.close()

    def let_go(self) -> None:
        """Close a forked child's copies of idle connections; the parent's live on.

        Without a lock and without httpx's own way of closing: threads of the parent, which the child does not
        have, may have held any lock at the fork. Nothing else of this object may be used in a child.
        """
        for lane in self._lanes:
            if lane.stream is not None:
                with contextlib.suppress(OSError):
                    lane.stream.get_extra_info("socket").close()

    def _open_lane(self) -> _Lane:
        client = httpx.Client(
            verify=self._tls,
            timeout=self._timeout,
            limits=httpx.Limits(max_connections=1, keepalive_expiry=KEEPALIVE_S),
            headers=HEADERS,
            cookies=no_cookies(),
        )
        return _Lane(client)

    def _take_lane(self) -> _Lane:
        with self._lock:
            # The newest first: its connection is the warmest, and the others may grow old and close.
            lane = self._lanes.pop() if self._lanes else None
        return lane or self._open_lane()

    def _return_lane(self, lane: _Lane) -> None:
        with self._lock:
            is_kept = not self._is_closed and len(self._lanes) < _LANES_KEPT_MAX
            if is_kept:
                self._lanes.append(lane)
        if not is_kept:
            lane.client.close()


def no_cookies() -> CookieJar:
    """A jar that takes none: whoever sets cookies would change our requests, and fill memory with them."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


def bounded(timeout_s: float, timeout: httpx.Timeout) -> httpx.Timeout:
    """Fewer seconds than usual; half of them are for the connection, so that some are left for the answer."""
    usual_s, connect_s = timeout.read or timeout_s, timeout.connect or timeout_s
    return httpx.Timeout(min(timeout_s, usual_s), connect=min(timeout_s / 2, connect_s))


@contextlib.contextmanager
def environment_checked() -> Iterator[None]:
    """Say it with a ValueError when the proxies or certificates that the environment names can't be used."""
    try:
        yield
    except (OSError, ValueError, ImportError, httpx.InvalidURL) as error:
        # Without the error's own words: they may repeat a proxy's password.
        problem = f"SSL_CERT_FILE, SSL_CERT_DIR or the proxy cannot be used ({type(error).__name__})"
        raise ValueError(f"environment: {problem}") from None


def _read_body(response: httpx.Response) -> tuple[bytes, bool]:
    """Read what there is of a body, and say whether that is all of it.

    The status has been heard by now, so a failure from here on only cuts the body.
    """
    parts: list[bytes] = []
    size = 0
    try:
        for part in response.iter_raw():
            size += len(part)
            if size > ANSWER_BYTES_MAX:
                return b"", False
            parts.append(part)
    except ERRORS:
        return b"", False
    return decoded(b"".join(parts), response.headers.get("content-encoding", ""))


def decoded(body: bytes, encoding: str) -> tuple[bytes, bool]:
    """Undo the compression that some gateways apply unasked, within the same bound."""
    if encoding.strip().lower() not in {"gzip", "x-gzip", "deflate"}:
        return body, True
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        return unpacker.decompress(body, ANSWER_BYTES_MAX), unpacker.eof
    except zlib.error:
        return b"", False


def no_reply(error: Exception, *, is_begun: bool, is_overdue: bool) -> NoReply:
    """Say what an error of a try means: whether its first byte had left, and whether its time was up."""
    failure = _failure(error, is_begun=is_begun, is_overdue=is_overdue)
    return NoReply(failure=failure, detail=one_line(_detail(error)))


def too_early(status: int) -> NoReply:
    """Judge a success that was answered before the whole request had left."""
    detail = f"answered {status} before the whole request had left"
    return NoReply(failure=Failure.SENT_THEN_OTHER, detail=detail)


def _failure(error: Exception, *, is_begun: bool, is_overdue: bool) -> Failure:
    if is_begun:
        if is_overdue or isinstance(error, httpx.TimeoutException):
            return Failure.SENT_THEN_TIMEOUT
        is_lost = isinstance(error, (httpx.NetworkError, httpx.RemoteProtocolError))
        return Failure.SENT_THEN_RESET if is_lost else Failure.SENT_THEN_OTHER
    causes = list(_causes(error))
    for kind, failure in _FAILURE_OF_CAUSE:
        if any(isinstance(cause, kind) for cause in causes):
            return failure
    return Failure.NOT_SENT_OTHER


# Before the first byte only. In this order: an SSLError is an OSError too.
_FAILURE_OF_CAUSE: Final = (
    (ssl.SSLError, Failure.TLS),
    ((socket.gaierror, UnicodeError), Failure.NAME_NOT_FOUND),
    (ConnectionRefusedError, Failure.REFUSED),
    (httpx.ConnectTimeout, Failure.CONNECT_TIMEOUT),
)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from. httpcore hides the cause (`from None`), but the context remains."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def _detail(error: Exception) -> str:
    """The system's words where there are any; a library's may repeat a header, and so only its class."""
    for cause in _causes(error):
        if isinstance(cause, OSError):
            return str(cause) or type(cause).__name__
    is_about_answer = isinstance(error, (httpx.RemoteProtocolError, httpx.ProxyError))
    return f"{type(error).__name__}: {error}" if is_about_answer else type(error).__name__
