"""Whether a request is one that anybody could answer: its values, its form, its schemas."""

from ._request import check_request

__all__ = ["check_request"]
