"""`python -m tests.chaos`: play the matrix and print its table; `make chaos` runs this."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import Final

import click

import tests.chaos.groups  # noqa: F401  registers the faults
from tests.chaos.matrix import ALL, Matrix, chosen, hits, summary, table

#: The group of faults that the control goes through.
CONTROLLED: Final = "kills"


@click.command()
@click.option("--seed", type=int, help="Replays a run, or goes on with one.  [default: a new one]")
@click.option("--rounds", type=click.IntRange(1), default=1, show_default=True, help="Of a fault of share 1.")
@click.option("--only", "names", multiple=True, help="A fault or a group; may be given many times.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Houses at a time.")
@click.option("--client", type=click.Choice(["settle", "control"]), default="settle", show_default=True)
@click.option("--state-dir", type=click.Path(path_type=Path), default=Path(".chaos"), show_default=True)
def main(
    *, seed: int | None, rounds: int, names: tuple[str, ...], jobs: int, client: str, state_dir: Path
) -> None:
    """Play faults at a host under load, and hold what was tracked against what was billed."""
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    groups = [name for name in names if name in {each.group for each in chosen()}]
    faults = chosen([name for name in names if name not in groups], groups)
    click.echo(f"seed {seed}: `make chaos SEED={seed} ROUNDS={rounds}` replays it, or goes on with it")
    state = state_dir / f"{client}-{seed}-{rounds}.json"
    matrix = Matrix(seed, rounds, state=state, jobs=jobs, client=client, tell=click.echo)
    matrix.play(faults)
    for each in faults:
        if each.obstacle():
            click.echo(f"not played: {each.name}: {each.obstacle()}")
    click.echo(f"\n{hits(matrix.rows)}\n\n{table(matrix.rows)}\n\n{summary(matrix.rows)}")
    wrong = matrix.wrong() if client == "settle" else []
    if client == "settle" and any(each.group == CONTROLLED for each in faults):
        wrong += _play_control(seed, max(1, rounds // 500))
    for complaint in wrong:
        click.echo(complaint, err=True)
    sys.exit(1 if wrong else 0)


def _play_control(seed: int, rounds: int) -> list[str]:
    """Play the kills at the client that loses. Returns what is wrong when it was not caught."""
    matrix = Matrix(seed, rounds, client="control")
    matrix.play(chosen(groups=[CONTROLLED]))
    total = matrix.rows[ALL]
    click.echo(
        f"The control, a plain buffer in memory, through {total.counts['SIGKILL']:,} such kills: "
        f"{total.lost:,} of {total.tracked:,} events lost."
    )
    return [] if total.lost else ["the oracle did not see what the control loses"]


if __name__ == "__main__":
    main()
