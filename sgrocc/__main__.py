"""python -m sgrocc: the same as the command `sgrocc`."""

import sys

from sgrocc.cli import main

sys.exit(main())
