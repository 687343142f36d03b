"""Run the command line as `python -m minisplade`."""

import sys

from minisplade.cli import main

sys.exit(main())
