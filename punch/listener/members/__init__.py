"""Who asks a listener: of which machine, what that may ask for, and what it has asked so far."""

from ._askers import Asker, Askers
from ._usage import MemberUsage, UsageByMember

__all__ = ["Asker", "Askers", "MemberUsage", "UsageByMember"]
