"""Entry point of the program: `octrim`, or `python -m octrim`."""

import os
import sys

READER_GONE = 141
"""Exit code when whoever read the output has gone, as shells show it for a program that ends so: 128 and the number of SIGPIPE."""


def main() -> int:
    """Run `octrim.cli.main`. Ctrl-C is handled during its imports, too, because they take long enough for somebody to press it."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started the program
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    try:
        from octrim.cli import main as run

        return run()
    except KeyboardInterrupt:
        print("octrim: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # standard output's reader, such as `head`, has gone
        return READER_GONE
    finally:
        try:
            sys.stdout.flush()
        except OSError:  # told already; nothing is left for the interpreter to complain about
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
