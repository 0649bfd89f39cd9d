"""`python -m homeserver`: the same as the command `homeserver`."""

import sys

from homeserver.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
