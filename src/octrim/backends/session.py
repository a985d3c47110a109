"""Alias for `open_session` of `octrim.targets.opening`, which the documentation of version 0.1 named at this place."""

from octrim.targets.opening import open_session

__all__ = ["open_session"]
