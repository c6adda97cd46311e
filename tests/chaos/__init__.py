"""Chaos: faults played at a host under load, and an oracle that says what was lost and what came twice.

    make chaos                          every fault once, with a seed that it prints
    make chaos SEED=17 ROUNDS=1000      1,000 rounds; the same command goes on where it was ended (.chaos/)
    make chaos ROUNDS=1000 JOBS=3       three houses at a time
    python -m tests.chaos --only kill-worker --only disk --rounds 10
    python -m tests.chaos --client control      the client that loses, which the oracle must catch

A round is one fault, played once at a `House`: a sandbox, a collector and four workers of four tracking
threads, each a process of its own. Many rounds share a house (a *batch*); at its end the workers end in good
order, everything is sent, and the batch is judged. `make test` plays every fault once (`test_matrix.py`).

The files, each importing only earlier ones:

    tally       how many track() calls returned in each thread, in a mapped file that survives SIGKILL
    traffic     which event number N of a thread is
    oracle      tracked against applied, from the tally and the sandbox's own SQLite file; knows no settle_mp
    control     the client that is known to lose
    clock       the wall clock of a house, stepped from outside; mounts: small disks
    load        a worker: four threads that track; forks: a process that forks lives in odd ways
    damage      a state folder's files, read and spoiled without settle-mp
    ptrace      stops a process at its system calls
    points      the named moments between two durable writes
    keeper      forks collectors and workers, traces them (a process); keepers: the other end of its pipe
    house       all of these together: what a fault is played at
    fault       what a fault is, and the register
    judges      what is lost must be what was destroyed, or what was dropped
    kills, …    the faults, a file a group
    matrix      rounds, batches, the state file, the table

To add a fault
==============

Write a function that plays ONE round at a house under load and leaves it under load; register it. The name is
what `--only` takes, `what` is its row in the README's table:

    @fault("server-error-applied", group="upstream", what="500 after the batch was applied", counted="500")
    def server_error_applied(house: House) -> None:
        '''The answer is lost, not the batch.'''
        house.upstream.fault(Fault.answering(500, when="after"))    # everything of tests.upstreams is there
        house.wait_s(0.2, 0.5)                                      # seconds, by the round's dice
        house.count("500")                                          # what `counted` names, once a round

Put it into a file of its group (`kills.py`, `upstream.py`, `disk.py`, …), import the file in `groups.py`, and
give the group its tests in `test_<group>.py`, as `test_kills.py` does. A round is short: seconds at most.

What a round may use:

    house.random, house.wait_s(a, b)        the round's dice; use no others, so that a seed replays it
    house.worker(slot), house.any_slot()    workers 0 to 3; house.start_worker(slot) starts the next there
    house.collector, house.start_collector()
    house.strike(child), house.bury(child)  SIGKILL; wait until it has ended. Any other death is a complaint
    house.kill_at("before the commit")      SIGKILL at a point of `points.POINTS`, exactly there
    house.fail_at("sync of a seal")         errors of single calls of the collector, of `errors.FAILURES`
    house.start(), house.wait_up()          whoever is missing is started; wait until the collector listens
    house.wait_until(is_so, what)           for anything else, with a deadline
    house.look()                            `settle-mp status --json`: it must balance, or that is a complaint
    house.state_dir, house.environ          files of the host; the environment of whom it starts next
    house.complaints                        append a sentence for whatever else is wrong
    house.is_control                        there is no collector then; do the like to a worker, or nothing

By default a batch is right when nothing is lost, nothing is twice, no idempotency key came with two bodies,
every look at `status` balanced, and nobody died but by our hands. A fault that destroys data, or an upstream
that breaks its promises, is judged otherwise:

    def at_most_in_doubt(settled: Settled) -> list[str]:
        '''Repeats are possible, and at most what the count of doubts says.'''
        doubts = settled.status["in_doubt_ever"]["events"]
        verdict = settled.verdict
        return [f"{verdict.twice} twice"] if verdict.lost or verdict.twice > doubts else []

    @fault("forgetful-server", group="upstream", what="a server that ignores idempotency keys",
           counted="reset", judge=at_most_in_doubt, upstream={"ignores_idempotency_keys": True},
           settings={"SETTLE_MP_BATCH_ROWS_MAX": "10"})

`verdict` has tracked, allowed, lost, twice (events) and complaints (sentences, of keys that differ first).
`judges` has those of faults that destroy or drop events, and count what they destroy. `disk_mebibytes` gives
the state folder a disk of its own, `settings=clock.SETTINGS` the house a clock (`house.clock.step(3600.0)`).
Faults of one group with the same judge, settings and upstream share a house in short runs; nothing of a round
may be left standing that the next one does not expect (`house.upstream.clear_faults()`). Where a machine
can't play it, `obstacle` is a function that says why; the test is then skipped with that reason.

Faults that differ in little share a row of the table (`family`, `member`). A fault that needs a state folder
of its own opens a house within its round: `open_house(seed=…, is_started=False)`, as `first-start` does.

A fault that is not about load needs no house: write an ordinary test, and use `oracle` if it helps.
"""
