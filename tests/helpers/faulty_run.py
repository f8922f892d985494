"""`vlkit` in a process of a job in which something goes wrong: FAULT STEP ARGUMENTS of the command line."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from vlkit.cli.app import main
from vlkit.errors import VlkitError
from vlkit.training import steps


def _fault(kind: str) -> None:
    if kind == "raise":
        raise VlkitError("the tape of rank 1 is full")
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    fault, at, *arguments = sys.argv[1:]
    step = steps.Steps._step

    def faulty(self: steps.Steps, *args: Any) -> Any:
        time.sleep(0.01)
        if os.environ["RANK"] == "1" and self.place.step + 1 == int(at):
            _fault(fault)
        return step(self, *args)

    steps.Steps._step = faulty  # type: ignore[method-assign]
    sys.argv = ["vlkit", *arguments]
    main()
