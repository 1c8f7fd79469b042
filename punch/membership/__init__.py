"""Membership of a closed namespace: its keys and grants on disk, joining, letting others in.

What a grant allows is decided by `punch.access`; here it is kept in files that all programs of a
machine share, made, renewed and asked for.
"""

from ._door import Door
from ._folder import default_folder, left_in, write_secret
from ._home import (
    Home,
    create_home,
    export_root,
    find_home,
    home_in,
    homes,
    import_root,
    is_open,
    open_name,
)
from ._invites import OVER, find_invite, make_invite, read_invites, withdraw_invite
from ._joining import (
    MEMBER_PORTS,
    Joined,
    everywhere,
    join_with,
    keep_joined,
    open_joining,
    places_of,
    redeem_invite,
)
from ._members import MemberRecord, read_members
from ._membership import DiskMembership, open_membership
from ._removing import read_removals, remove_machine
from ._running import serving
from ._serving import open_door, open_upkeep
from ._tries import Tries, host_of
from .calls import (
    CreatedInvite,
    InviteStatus,
    MemberStatus,
    approve_newcomer,
    create_invite,
    create_namespace,
    find_member,
    find_namespace,
    host_name,
    join_namespace,
    join_nearby,
    joined_namespaces,
    list_invites,
    list_members,
    list_newcomers,
    refuse_newcomer,
    remove_member,
    rename_member,
)
from .codes import (
    MAX_CODE_CHARACTERS,
    Code,
    Drawing,
    LongCode,
    ShortCode,
    draw,
    draw_on,
    parse_code,
)
from .finding import find_joining
from .leaving import Left, leave_namespace
from .nearby import (
    Asked,
    NearbyRequest,
    approve_request,
    ask_members,
    ask_nearby,
    decided_words,
    find_request,
    is_digits,
    read_requests,
    refuse_request,
    shown_digits,
)
from .renewal import rotate_key

__all__ = [
    # what each command does, for programs
    "create_namespace",
    "joined_namespaces",
    "find_namespace",
    "create_invite",
    "CreatedInvite",
    "list_invites",
    "InviteStatus",
    "join_namespace",
    "join_nearby",
    "list_newcomers",
    "approve_newcomer",
    "refuse_newcomer",
    "list_members",
    "find_member",
    "MemberStatus",
    "rename_member",
    "remove_member",
    "host_name",
    # being a member
    "open_membership",
    "DiskMembership",
    # the namespaces of this machine
    "Home",
    "homes",
    "find_home",
    "home_in",
    "create_home",
    "leave_namespace",
    "Left",
    "left_in",
    "rotate_key",
    "export_root",
    "import_root",
    "is_open",
    "open_name",
    "default_folder",
    "write_secret",
    # letting others in
    "make_invite",
    "read_invites",
    "find_invite",
    "withdraw_invite",
    "OVER",
    "open_door",
    "open_upkeep",
    "Door",
    "serving",
    "Code",
    "LongCode",
    "ShortCode",
    "parse_code",
    "draw",
    "draw_on",
    "Drawing",
    "MAX_CODE_CHARACTERS",
    # joining
    "redeem_invite",
    "open_joining",
    "join_with",
    "keep_joined",
    "Joined",
    "places_of",
    "everywhere",
    "MEMBER_PORTS",
    # joining without a code
    "ask_nearby",
    "ask_members",
    "Asked",
    "find_joining",
    "NearbyRequest",
    "read_requests",
    "find_request",
    "approve_request",
    "refuse_request",
    "decided_words",
    "shown_digits",
    "is_digits",
    # the others
    "MemberRecord",
    "read_members",
    "remove_machine",
    "read_removals",
    # bounds on what strangers may try, at other doors too
    "Tries",
    "host_of",
]
