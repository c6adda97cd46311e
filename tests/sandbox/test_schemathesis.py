"""The OpenAPI document against the sandbox: schemathesis tries what it describes, and what it does not.

Longer by hand: `EXAMPLES=500 python -m pytest --timeout 0 tests/sandbox/test_schemathesis.py`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from settle_mp.sandbox.transfers import CREDITS_MAX
from tests.sandbox.posting import get
from tests.upstreams import sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.upstreams import Upstream

pytestmark = pytest.mark.slow

EXAMPLES = os.environ.get("EXAMPLES", "5")


@pytest.fixture
def served() -> Iterator[Upstream]:
    """A sandbox that takes one key alone, and in which a few wallets hold something."""
    with sandbox(api_key="ss_test_schemathesis", seeds={"0": 1_000, "a/b": 5}) as upstream:
        yield upstream


def run(upstream: Upstream, folder: Path, location: str, *options: str) -> str:
    """Run schemathesis on a document; returns what it says, having found nothing."""
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", location, "--url", upstream.base_url),
        *("--header", f"X-API-Key: {upstream.api_key}", "--max-examples", EXAMPLES, "--seed", "1"),
        *("--no-color", "--continue-on-failure", *options),
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def cases_count(said: str) -> int:
    """How many requests it made."""
    found = re.search(r"(\d+) generated", said)
    assert found is not None, said
    return int(found[1])


def test_no_5xx_and_no_undocumented_answer(served: Upstream, tmp_path: Path) -> None:
    """Good requests and bad ones, to every call: what comes back is in the document, and never a 5xx.

    Every check of schemathesis's but one, which has its own test below.
    """
    said = run(
        served,
        tmp_path,
        f"{served.base_url}/openapi.json",
        *("--checks=all", "--exclude-checks=positive_data_acceptance"),
    )
    assert "Tested: 20" in said
    assert cases_count(said) > 300
    statuses = served.requests()["byStatus"]
    assert {"200", "400", "401"} <= statuses.keys()
    assert not [status for status in statuses if status.startswith("5")]


def test_what_the_document_allows_is_taken(served: Upstream, tmp_path: Path) -> None:
    """No request that is as described is refused, but for a debit of more than the wallet holds.

    Without the Idempotency-Key, whose quotes schemathesis takes off before it sends it; with credits of which
    a wallet can take many, and quantities that can be tracked.
    """
    described = get(served, "/openapi.json").text
    for allowed, tried in (
        (f'"maximum":{CREDITS_MAX}', '"maximum":1000000'),
        ('"exclusiveMinimum":0', '"minimum":0.000000001,"maximum":1000000000000'),
    ):
        assert allowed in described
        described = described.replace(allowed, tried)
    document: dict[str, Any] = json.loads(described)
    for path in document["paths"].values():
        for operation in path.values():
            operation["parameters"] = [
                each for each in operation.get("parameters", []) if each["name"] != "Idempotency-Key"
            ]
    (tmp_path / "document.json").write_text(json.dumps(document))
    (tmp_path / "schemathesis.toml").write_text(
        '[checks]\npositive_data_acceptance.expected-statuses = ["2xx", 402]\n'
    )
    said = run(
        served,
        tmp_path,
        "document.json",
        *("--checks=positive_data_acceptance", "--include-path-regex=^/v1", "--mode=positive"),
    )
    assert "Tested: 9" in said
    assert cases_count(said) > 50


def test_an_answer_that_is_not_described_is_found(served: Upstream, tmp_path: Path) -> None:
    """These tests can fail."""
    document: dict[str, Any] = get(served, "/openapi.json").json()
    del document["paths"]["/v1/wallet/{userId}/debit"]["post"]["responses"]["402"]
    (tmp_path / "document.json").write_text(json.dumps(document))
    with pytest.raises(AssertionError, match=r"Undocumented (HTTP )?status code"):
        run(
            served,
            tmp_path,
            "document.json",
            *("--checks=status_code_conformance", "--include-path-regex=debit$", "--phases=fuzzing"),
        )
