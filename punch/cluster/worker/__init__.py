"""The worker: lends the memory of a machine to one borrower at a time, over llama.cpp's RPC."""

from ._door import LendingDoor
from ._lending import Lending
from ._parts import FarEnd, FarEnds, Lender, RunningServer
from ._rpc_lender import RpcLender, open_rpc_lender
from ._worker import Worker, WorkerStatistics, open_worker

__all__ = [
    "open_worker",
    "Worker",
    "WorkerStatistics",
    # what it lends with
    "open_rpc_lender",
    "RpcLender",
    "Lender",
    "RunningServer",
    "FarEnds",
    "FarEnd",
    # how it lends
    "Lending",
    "LendingDoor",
]
