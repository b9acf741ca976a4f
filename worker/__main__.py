"""`python -m worker`: the command `projector` without its script."""

import sys

from start_projector import main

if __name__ == "__main__":
    sys.exit(main())
