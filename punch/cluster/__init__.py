"""Memory of several machines for one model: leases, workers that lend, and who borrows."""

from .leases import Desk, LentDevice, Surveyed

__all__ = ["Desk", "LentDevice", "Surveyed"]
