"""Who is let in: one function that decides, called at every door.

A namespace without a lock lets everybody in who knows its name and can reach it. A closed one has a
root key, and lets in who shows a chain of grants from it. The doors are a session's hello and a
bootstrap's join; each calls an `Admit` before it says a word of its own.

No I/O: time, chance and signing are arguments. Keys and files are kept by `punch.membership`.
"""

from ._admit import RULES, Admit, Introduction, Refusal, admit_everybody
from ._chain import MAX_CHAIN, Chain, decode_chain, encode_chain
from ._grant import (
    GRANT_CONTEXT,
    MAX_ENDS,
    MAX_NUMBER,
    MAX_SCOPES,
    SCOPES,
    Grant,
    Kind,
    Sign,
    SignedGrant,
    Verify,
    sign_grant,
)
from ._invites import MAX_INVITES, MAX_USES, Guess, Invite, Invites, Outcome, Use
from ._issuing import (
    GRANT_SECONDS,
    RENEW_SECONDS,
    ROOT_GRANT_SECONDS,
    Issuer,
    fault_of_member_name,
    hidden_name,
    is_name,
    renew_at,
)
from ._keys import KEY_BYTES, key_of, peer_of
from ._lock import GRACE_SECONDS, PROCESS_SECONDS, STRANGER, Lock, Member, Remembered
from ._membership import Membership
from ._namespace import (
    FINGERPRINT_LETTERS,
    Namespace,
    fault_of_name,
    fingerprint_of,
    parse_namespace,
)
from ._removing import remove
from ._revocation import (
    MAX_KEPT,
    MAX_REVOCATION_BYTES,
    REVOCATION_CONTEXT,
    Revocation,
    SignedRevocation,
    read_revocation,
    sign_revocation,
)
from ._revocations import MAX_REMOVED_KEYS
from ._rotation import ROTATION_CONTEXT, is_rotation, sign_rotation

__all__ = [
    # doors
    "Admit",
    "Introduction",
    "Refusal",
    "RULES",
    "STRANGER",
    "admit_everybody",
    # a closed namespace
    "Namespace",
    "Membership",
    "Lock",
    "Remembered",
    "Member",
    "GRACE_SECONDS",
    "PROCESS_SECONDS",
    "parse_namespace",
    "fault_of_name",
    "fingerprint_of",
    "FINGERPRINT_LETTERS",
    # grants
    "Grant",
    "SignedGrant",
    "Chain",
    "Kind",
    "Sign",
    "Verify",
    "SCOPES",
    "MAX_SCOPES",
    "MAX_CHAIN",
    "MAX_NUMBER",
    "MAX_ENDS",
    "GRANT_CONTEXT",
    "sign_grant",
    "encode_chain",
    "decode_chain",
    # making and renewing them
    "Issuer",
    "GRANT_SECONDS",
    "ROOT_GRANT_SECONDS",
    "RENEW_SECONDS",
    "renew_at",
    "hidden_name",
    "is_name",
    "fault_of_member_name",
    # invites
    "Invites",
    "Invite",
    "Use",
    "Guess",
    "Outcome",
    "MAX_INVITES",
    "MAX_USES",
    # removal
    "remove",
    "Revocation",
    "SignedRevocation",
    "REVOCATION_CONTEXT",
    "MAX_REVOCATION_BYTES",
    "MAX_REMOVED_KEYS",
    "MAX_KEPT",
    "sign_revocation",
    "read_revocation",
    # keys
    "KEY_BYTES",
    "key_of",
    "peer_of",
    "sign_rotation",
    "is_rotation",
    "ROTATION_CONTEXT",
]
