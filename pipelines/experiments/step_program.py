"""Run ``FD MODULE ARGUMENTS...`` as ``python -m MODULE ARGUMENTS...`` would, ended by SIGTERM with the parent process.

FD is the reading end of a pipe on which nothing is ever written; the parent holds the other end.
"""

import runpy
import signal
import sys

from pseudo_maps.processes import end_with_parent

if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]), by=signal.SIGTERM)
    module = sys.argv[2]
    del sys.argv[1:3]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
