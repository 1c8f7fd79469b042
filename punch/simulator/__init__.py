"""The swarm in a box: real listeners and routers on virtual time, on simulated machines."""

from ._engine import Engine, Job, PrefixCache, forecast, job_of
from ._generator import GENERATORS, generate, open_trace
from ._harm import HARM_COLUMNS, Harm, harm_cell, harm_table
from ._kinds import KINDS, RESTART_SECONDS, manner_of
from ._machine import SimulatedBackend, World
from ._oracle import Oracle, oracle
from ._picture import picture
from ._pool import HOME, Pool, PoolPeer, parse_pool
from ._report import COLUMNS, Estimate, Figures, as_plain_data, estimate, estimates, number, table
from ._run import DELAY, ORACLE, QUEUE_LIMIT, TIMEOUT, Asked, Outcome, Served, at_load, simulate
from ._traces import Trace, TraceRequest, parse_trace, read_trace

__all__ = [
    # what is asked
    "Trace",
    "TraceRequest",
    "open_trace",
    "read_trace",
    "parse_trace",
    "generate",
    "GENERATORS",
    # the machines that answer
    "Pool",
    "PoolPeer",
    "parse_pool",
    "HOME",
    "KINDS",
    "RESTART_SECONDS",
    "manner_of",
    # running it
    "simulate",
    "at_load",
    "Outcome",
    "Served",
    "Asked",
    "ORACLE",
    "DELAY",
    "QUEUE_LIMIT",
    "TIMEOUT",
    # how a machine serves
    "Engine",
    "Job",
    "job_of",
    "PrefixCache",
    "forecast",
    "SimulatedBackend",
    "World",
    "Oracle",
    "oracle",
    # what it says
    "Figures",
    "Estimate",
    "estimate",
    "estimates",
    "COLUMNS",
    "number",
    "table",
    "as_plain_data",
    "picture",
    "Harm",
    "HARM_COLUMNS",
    "harm_cell",
    "harm_table",
]
