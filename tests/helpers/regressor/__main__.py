"""The command line with the third kind of model: ``python -m tests.helpers.regressor train RECIPE``."""

from __future__ import annotations

import sys

from tests.helpers.regressor import register

if __name__ == "__main__":
    from vlkit.cli.app import main

    register()
    sys.argv[0] = "vlkit"
    main()
