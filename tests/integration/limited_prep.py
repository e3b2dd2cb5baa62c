"""``wsol-prep`` with files of so many bytes at most: ``python -m tests.integration.limited_prep BYTES WORDS``."""

import sys

from pipelines.prep_cli import main
from tests.integration.limits import files_of_at_most

if __name__ == "__main__":
    with files_of_at_most(int(sys.argv.pop(1))):
        main(prog_name="wsol-prep")
