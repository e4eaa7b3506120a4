"""`python -m rlfd` is the same as `rlfd`: nothing is imported from the current folder."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    if sys.path[0] in ("", os.getcwd()) and not getattr(sys.flags, "safe_path", False):
        del sys.path[0]
    from rlfd.cli.main import main

    main()
