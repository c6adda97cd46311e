"""Hosts: the servers that our users run, real ones.

`machine` has one machine with what runs on it, for any test that needs a server or a collector as a process.
Beside it stands the matrix: `row` says what a row is, `play` plays it, `matrix` lists all of them,
`results` and `table` keep and show what came out. `make hosts` runs it, see `__main__`.
"""

from tests.hosts.machine import CLI, DEADLINE_S, ROOT, Gunicorn, Host, Program, host

__all__ = ["CLI", "DEADLINE_S", "ROOT", "Gunicorn", "Host", "Program", "host"]
