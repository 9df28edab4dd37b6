"""The name of the older library's module of this name; new programs import it from zstreamer."""

from zstreamer.model import ManagedModel

__all__ = ["ManagedModel"]
