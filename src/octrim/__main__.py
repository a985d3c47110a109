"""Entry point of the program: `octrim`, or `python -m octrim`."""

import sys


def main() -> int:
    """Run `octrim.cli.main`, and handle Ctrl-C during its imports, too, because they take long enough for somebody to press it."""
    try:
        from octrim.cli import main as run

        return run()
    except KeyboardInterrupt:
        print("octrim: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
