"""The address at which version 0.1's documentation had `open_session`, which is in `octrim.targets.opening`."""

from octrim.targets.opening import open_session

__all__ = ["open_session"]
