"""``wsol-prep`` where the system refuses something: ``python -m tests.integration.limited_prep LIMIT WORDS``.

LIMIT is the largest number of bytes that a file may have, or ``permissions``, which then bind root too.
"""

import sys

from pipelines.prep_cli import main
from tests.integration.limits import bind_new_programs_by_permissions, bound_by_permissions, files_of_at_most

if __name__ == "__main__":
    limit = sys.argv.pop(1)
    if limit == "permissions":
        bind_new_programs_by_permissions()
        with bound_by_permissions():
            main(prog_name="wsol-prep")
    else:
        with files_of_at_most(int(limit)):
            main(prog_name="wsol-prep")
