"""``wsol-prep`` where the system refuses something: ``python -m tests.integration.limited_prep LIMIT WORDS``.

LIMIT is the largest number of bytes that a file may have: writing fails as on a full disk. Or it is ``permissions``,
and root obeys them as other users do.
"""

import ctypes
import os
import resource
import signal
import sys

from pipelines.prep_cli import main

CAPABILITY_VERSION = 0x20080522
OVERRIDING = (1, 2)
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (capabilities(7))."""
PR_CAPBSET_DROP = 24


def limit_file_size(limit_bytes: int) -> None:
    """Have writing beyond a number of bytes fail with an error, in this process and those that it starts."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))


def obey_permissions() -> None:
    """Take the right to override permissions from this process and those that it starts."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    effective_permitted_inheritable = (ctypes.c_uint32 * 6)()
    check(libc.capget(header, effective_permitted_inheritable))
    for number in OVERRIDING:
        # What a program of root gets at its start.
        check(libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0))
        for word in range(3):
            effective_permitted_inheritable[word] &= ~(1 << number)
    check(libc.capset(header, effective_permitted_inheritable))


def check(code: int) -> None:
    if code != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    limit = sys.argv.pop(1)
    if limit != "permissions":
        limit_file_size(int(limit))
    elif os.geteuid() == 0:
        obey_permissions()
    main(prog_name="wsol-prep")
