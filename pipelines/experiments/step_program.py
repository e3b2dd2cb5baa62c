"""Turns ``FD MODULE WORDS...`` into the program that the module is, which is told to stop when its parent is gone.

FD is the reading end of a pipe on which nothing is ever written. The kernel closes the other end with the process
that holds it, also when that was killed and could tell nobody.
"""

import os
import runpy
import signal
import sys
import threading

__all__ = ["main"]


def main() -> None:
    """Run the module as ``python -m`` does; it gets SIGTERM, once, at the end of the pipe.

    A signal to the parent's death (``PR_SET_PDEATHSIG``) would come at the end of the thread that started this
    process, and on Linux alone.
    """
    lifeline, module = int(sys.argv[1]), sys.argv[2]
    # What this program starts in its turn is its own affair.
    os.set_inheritable(lifeline, False)
    threading.Thread(target=_stop_when_alone, args=(lifeline,), name="lifeline", daemon=True).start()
    del sys.argv[1:3]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _stop_when_alone(lifeline: int) -> None:
    os.read(lifeline, 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
