"""`python -m predictor` is the `predictor` command."""

import sys

from predictor.cli import main

sys.exit(main())
