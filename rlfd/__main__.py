"""`python -m rlfd` is the same as `rlfd`."""

from __future__ import annotations

from rlfd.cli.main import main

if __name__ == "__main__":
    main()
