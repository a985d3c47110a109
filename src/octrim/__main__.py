import sys

from octrim.cli import main

sys.exit(main())
