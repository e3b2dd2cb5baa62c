"""Run a module as ``python -m`` does; it gets SIGTERM when the parent process is gone.

Arguments: the reading end of a pipe that the parent holds open, the module, and the arguments of the module.
"""

import runpy
import signal
import sys

from pseudo_maps.processes import end_with_parent

__all__ = ["main"]


def main() -> None:
    """Run the module."""
    lifeline, module = int(sys.argv[1]), sys.argv[2]
    end_with_parent(lifeline, by=signal.SIGTERM)
    del sys.argv[1:3]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
