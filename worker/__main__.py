"""`python -m worker` is the command `projector`."""

import sys

from worker.command_line import main

if __name__ == "__main__":
    sys.exit(main())
