"""`python -m impasto`: the command of that name, which impasto's own distribution installs."""

from __future__ import annotations

import sys

from .distributions import OWN_DISTRIBUTION, scan_entry_points


def main() -> None:
    """Run the command line. Ends the process."""
    try:
        for owner in scan_entry_points().owners:
            for entry in owner.entries if owner.is_own else ():
                if (entry.group, entry.name) == ("console_scripts", OWN_DISTRIBUTION):
                    entry.load()()
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit("impasto's own metadata was not found, so it has no commands; install impasto again")


if __name__ == "__main__":
    main()
