"""`python -m engine_builder`."""

import sys

from engine_builder.cli import main

if __name__ == "__main__":
    sys.exit(main())
