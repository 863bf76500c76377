"""The command `copgen`, and `python -m copgen_cli`."""

from __future__ import annotations

import sys

from copgen_cli.errors import EXIT_SIGINT


def main() -> None:
    """Run the command line; see `copgen_cli.app.main`. Ctrl-C while it is still being imported is no traceback."""
    try:
        from copgen_cli.app import main as run
    except KeyboardInterrupt:
        sys.exit(EXIT_SIGINT)
    run()


if __name__ == "__main__":
    main()
