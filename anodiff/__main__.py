"""`python -m anodiff`: the same as the command `anodiff`."""

import sys

from anodiff.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
