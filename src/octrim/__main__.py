"""The program: `octrim`, and `python -m octrim`."""

import sys


def main() -> int:
    """`octrim.cli.main`, whose imports take long enough for somebody to press Ctrl-C."""
    try:
        from octrim.cli import main as run

        return run()
    except KeyboardInterrupt:
        print("octrim: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
