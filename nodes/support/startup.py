"""SIGINT while the modules of an executable are imported: one line and exit status 0, as `run.run_node` does later."""

from __future__ import annotations

import os
import signal
import sys


def exit_on_signal(executable: str, module: str) -> None:
    """Until `run_node` takes over, let SIGINT and SIGTERM end this process with one line and exit status 0.

    Call it before the imports of the executable, which take seconds. `module`: its `__name__`. Does nothing if another
    program imports the module.
    """
    if module != "__main__" and os.path.basename(sys.argv[0]) != executable:
        return

    def on_signal(number: int, frame: object) -> None:
        os.write(2, f"[INFO] [{executable}]: stopped by {signal.Signals(number).name}\n".encode())
        os._exit(0)  # an exception might end in a half-imported module, whose own errors would be printed

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
