"""What people ask of a closed namespace: a function for each command, for programs as well.

Each blocks for as long as a few small files take, except those that join, which talk to members.
"""

from ._invites import CreatedInvite, InviteStatus, create_invite, list_invites
from ._members import (
    MemberStatus,
    approve_newcomer,
    find_member,
    list_members,
    list_newcomers,
    refuse_newcomer,
    remove_member,
    rename_member,
)
from ._namespaces import (
    create_namespace,
    find_namespace,
    host_name,
    join_namespace,
    join_nearby,
    joined_namespaces,
)

__all__ = [
    # namespaces
    "create_namespace",
    "joined_namespaces",
    "find_namespace",
    "host_name",
    # letting machines in
    "create_invite",
    "CreatedInvite",
    "list_invites",
    "InviteStatus",
    "list_newcomers",
    "approve_newcomer",
    "refuse_newcomer",
    # joining
    "join_namespace",
    "join_nearby",
    # members
    "list_members",
    "find_member",
    "MemberStatus",
    "rename_member",
    "remove_member",
]
