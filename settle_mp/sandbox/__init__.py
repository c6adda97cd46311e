"""A local stand-in for the upstream API: real HTTP, exact sums, misbehaviour on cue.

It is one account of the upstream on your own machine. `settle-mp sandbox` runs it; everything below
needs the extra: `pip install 'settle-mp[sandbox]'`.

The upstream's calls (header `X-API-Key: ss_test_…`), success `{"data": …}`, failure
`{"message": "…", "data": {…}}`:

    POST /v1/events                     one event
    POST /v1/events/batch               {"events": [event, …]}, all of it or none of it
    GET  /v1/events/summary?userId=U    {"summary": [{"eventType", "totalQuantity", "count"}]}
    GET  /v1/wallet/U                   {"userId", "balance"}; the same as /v1/wallet/U/balance
    POST /v1/wallet/U/debit             {"amount", "description", "metadata"} -> a transaction, or 402
    POST /v1/wallet/U/credit            the same
    POST /v1/wallet/U/ad-reward         {"adNetwork", "rewardAmount", "adUnitId"} -> a transaction
    GET  /v1/wallet/U/history           ?page=1&limit=10, the newest first
    GET  /openapi.json                  all of these, described

A user id stands percent-encoded in the path, `/` included. A wallet that was never used holds 0.

`Idempotency-Key` follows draft-ietf-httpapi-idempotency-key-header-07: a quoted string, checked against
the path and the exact bytes of the body. The same key and body get the stored answer again, refusals
included, with the header `Idempotency-Replayed: true`; another body gets 422; one in progress, 409.

What happened, and what to do wrong (no key from this machine; from elsewhere `X-API-Key`, or HTTP Basic
with the key as the password):

    GET    /                            the usage page, for people
    GET    /sandbox/usage               totals by event type; quantities are exact decimal strings
    GET    /sandbox/rows                applied rows, paged: ?eventType=&userId=&after=&limit=
    GET    /sandbox/requests            counts of requests under /v1, by status and by path
    GET    /sandbox/log?after=N         those requests one by one (the last 10,000)
    POST   /sandbox/faults              one fault or a list: the fields of `settle_mp.sandbox.faults.Fault`
    GET    /sandbox/faults              the faults still standing
    DELETE /sandbox/faults              forget them, and let held requests go on
    POST   /sandbox/release             let held requests go on, and hold no more
    DELETE /sandbox/idempotency-keys    forget all keys, as a server does after its day
    GET    /sandbox/wallets             what each wallet holds
    POST   /sandbox/wallets             {"user_123": 500}: credits for wallets that were never used

    curl -X POST localhost:8790/sandbox/faults -d '{"action": "reset", "times": 3}'
    curl -X POST localhost:8790/sandbox/faults -d '{"action": "answer", "status": 503, "when": "before"}'

The modules, each importing only earlier ones: `exact` (numbers), `answers` (what is said, and how badly),
`openapi` (what is said of them), `idempotency` (keys), `rows` (what a strict server takes), `faults` and
`fault_queue`, `exchanges` (requests seen), `store`, `usage` and `transfers` (SQLite), `wallet_bodies`,
`pipeline` (the way of a request), `access` (who may), `events`, `wallet`, `page` and `control` (routes),
`app`, `server`.
"""
