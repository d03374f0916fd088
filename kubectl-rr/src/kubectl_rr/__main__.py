"""`python -m kubectl_rr`."""

import sys

from kubectl_rr.cli import main

if __name__ == "__main__":
    sys.exit(main())
