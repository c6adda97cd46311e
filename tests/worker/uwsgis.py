"""A stand-in for the module that uWSGI puts into its processes."""

from __future__ import annotations

from types import ModuleType
from typing import Any


class Uwsgi(ModuleType):
    """As much of it as we ask for; see https://uwsgi-docs.readthedocs.io/en/latest/PythonModule.html."""

    def __init__(
        self, worker: int = 0, *, has_threads: bool = False, mule: int = 0, spooler: bool = False
    ) -> None:
        super().__init__("uwsgi")
        self.worker, self.mule, self.is_spooler = worker, mule, spooler
        self.has_threads = has_threads
        self.version = b"2.0.26"
        self.opt: dict[str, Any] = {"module": b"shop:app"}

    def worker_id(self) -> int:
        """0 before the fork, and in processes that are no workers."""
        return self.worker

    def mule_id(self) -> int:
        """0 in processes that are no mules."""
        return self.mule

    def i_am_the_spooler(self) -> bool:
        """Whether this is one."""
        return self.is_spooler
