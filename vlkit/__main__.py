"""`python -m vlkit` is `vlkit`."""

from __future__ import annotations

from vlkit.cli.app import main

if __name__ == "__main__":
    main()
