"""The upstream: sends the calls of the vendor's HTTP API and hears what they are answered.

Rule 1: nothing that happens on the way raises: it is an answer, which says whether the request may have been
    applied. Bad arguments raise, and so does a defect of our own, which the caller must take as in doubt.
Rule 2: the key leaves in one header and is in no repr, log, answer or error, also when a server repeats it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import httpx

from settle_mp.core import kinds
from settle_mp.core.answer import NoReply, read_reply
from settle_mp.core.call import hear
from settle_mp.core.secret import hide_keys
from settle_mp.exchange import Exchanges, Received

if TYPE_CHECKING:
    from settle_mp.core.answer import Answer
    from settle_mp.core.call import Call, Heard
    from settle_mp.core.secret import Secret

#: Seconds for a connection. One that takes longer is not made in time for a second try either.
CONNECT_TIMEOUT_S: Final = 5.0
#: Seconds for a whole try: three times what the vendor's own SDK waits, since giving up early makes a doubt.
TRY_TIMEOUT_S: Final = 30.0

_BATCH_PATH: Final = "/v1/events/batch"
_KEPT_HEADERS: Final = ("retry-after", "location", "content-type")


class Account:
    """An address and a key: what is put on each request, and taken out of what comes back.

    Args:
        base_url: The address, with or without `/v1` at its end.
        api_key: The key.

    Raises:
        ValueError: If the address or the key is none.
    """

    def __init__(self, base_url: str, api_key: Secret) -> None:
        self._base_url: str = kinds.base_url().check(base_url)
        _check_host(self._base_url)
        self._api_key: Secret = kinds.key().check(api_key)

    def url(self, path: str) -> str:
        """The whole address of a path."""
        return self._base_url + path

    def has_key(self, api_key: Secret) -> bool:
        """Whether this is its key."""
        return self._api_key == api_key

    def headers(self, idempotency_key: str | None) -> dict[str, str]:
        """The headers of a request: its type, the API key, and the idempotency key of a write.

        Raises:
            ValueError: If the idempotency key has other characters in it than printable ASCII.
        """
        key = {} if idempotency_key is None else {"Idempotency-Key": _quoted(idempotency_key)}
        return {**key, "Content-Type": "application/json", "X-API-Key": self._api_key.reveal()}

    def cleaned(self, received: Received | NoReply) -> Received | NoReply:
        """The same answer without the API key, and with the headers that somebody reads."""
        if isinstance(received, NoReply):
            return replace(received, detail=self._without_key(received.detail))
        kept = {name: received.headers[name] for name in _KEPT_HEADERS if name in received.headers}
        return replace(
            received,
            headers={name: self._without_key(value) for name, value in kept.items()},
            body=received.body.replace(self._api_key.reveal().encode(), str(self._api_key).encode()),
        )

    def __repr__(self) -> str:
        return f"<Account {self._base_url}>"

    def _without_key(self, text: str) -> str:
        return hide_keys(text.replace(self._api_key.reveal(), str(self._api_key)))


class Upstream:
    """One address and one key; any number of threads may send through it at once.

    Args:
        base_url: The address, with or without `/v1` at its end.
        api_key: The key.
        connect_timeout_s: Seconds for a connection to each address that the name has.
        try_timeout_s: Seconds for a whole try, up to the end of the answer's body.

    Raises:
        ValueError: If the address or the key is none, or if the proxies or certificates that the environment
            names can't be used.
    """

    def __init__(
        self,
        base_url: str,
        api_key: Secret,
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        try_timeout_s: float = TRY_TIMEOUT_S,
    ) -> None:
        self._account = Account(base_url, api_key)
        self._exchanges = Exchanges(connect_timeout_s=connect_timeout_s, try_timeout_s=try_timeout_s)

    def __repr__(self) -> str:
        return f"<Upstream {self._account.url('')}>"

    def post_batch(self, *, idempotency_key: str, body: bytes) -> Answer:
        """Send one batch, once.

        Args:
            idempotency_key: Printable ASCII; sent as a quoted string (RFC 8941, section 3.3.3).
            body: The exact bytes to send.

        Raises:
            ValueError: If the idempotency key has other characters in it.
        """
        received = self._exchange("POST", _BATCH_PATH, idempotency_key=idempotency_key, body=body)
        if isinstance(received, NoReply):
            return received
        reply = read_reply(received.status, received.headers, received.body, is_whole=received.is_whole)
        # After the key has been taken out of the whole body, this takes out one that the length cut in two.
        return replace(reply, message=hide_keys(reply.message))

    def call(self, call: Call[Any], *, timeout_s: float) -> Heard | NoReply:
        """Make one try at a call.

        Args:
            call: What to send.
            timeout_s: Seconds for this try, half of them for the connection; no more than for any other try.
        """
        return heard(
            self._exchange(
                call.method,
                call.path,
                idempotency_key=call.idempotency_key,
                body=call.body,
                timeout_s=timeout_s,
            )
        )

    def close(self) -> None:
        """Close the idle connections. A try under way or still to come ends as usual, then closes its own."""
        self._exchanges.close()

    def let_go(self) -> None:
        """Close a forked child's copies of idle connections; nothing else may be used there."""
        self._exchanges.let_go()

    def _exchange(
        self,
        method: str,
        path: str,
        *,
        idempotency_key: str | None,
        body: bytes,
        timeout_s: float | None = None,
    ) -> Received | NoReply:
        """Do one call of the API, whichever: the key is added on the way out and taken out on the way in."""
        headers = self._account.headers(idempotency_key)
        url = self._account.url(path)
        received = self._exchanges.exchange(method, url, headers=headers, body=body, timeout_s=timeout_s)
        return self._account.cleaned(received)


def heard(received: Received | NoReply) -> Heard | NoReply:
    """Read what came back for a call."""
    if isinstance(received, NoReply):
        return received
    read = hear(received.status, received.headers, received.body, is_whole=received.is_whole)
    return replace(read, reply=replace(read.reply, message=hide_keys(read.reply.message)))


def _check_host(base_url: str) -> None:
    try:
        httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise ValueError(
            f"base_url is {base_url!r}; allowed: an address that HTTP can use ({error})"
        ) from None


def _quoted(idempotency_key: str) -> str:
    if not (idempotency_key.isascii() and idempotency_key.isprintable()):
        raise ValueError(f"idempotency_key is {idempotency_key!r}; allowed: printable ASCII")
    escaped = idempotency_key.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
