"""The process that moves the bytes of tunnels over TLS connections of their own; see `_process`.

It is started by `punch.tunnels`, and imported by nothing else.
"""
