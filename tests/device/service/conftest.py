"""The fixture of a separate `edgekit run`."""

from tests.edgekit.conftest import start

__all__ = ["start"]
