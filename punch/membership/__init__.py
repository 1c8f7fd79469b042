"""Membership of a closed namespace: its keys and grants on disk, joining, letting others in.

What a grant allows is decided by `punch.access`; here it is kept in files that all programs of a
machine share, made, renewed and asked for.
"""

from ._folder import default_folder
from ._home import (
    Home,
    create_home,
    export_root,
    find_home,
    home_in,
    homes,
    import_root,
    is_open,
    leave_home,
    open_name,
)
from ._members import MemberRecord, read_members
from ._membership import DiskMembership, open_membership

__all__ = [
    # being a member
    "open_membership",
    "DiskMembership",
    # the namespaces of this machine
    "Home",
    "homes",
    "find_home",
    "home_in",
    "create_home",
    "leave_home",
    "export_root",
    "import_root",
    "is_open",
    "open_name",
    "default_folder",
    # the others
    "MemberRecord",
    "read_members",
]
