"""`punch doctor`: gathers the facts, each within a bound, and shows what is wrong with a remedy.

What the facts mean is decided by `punch.doctor`.
"""
