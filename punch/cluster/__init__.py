"""Memory of several machines for one model: leases, workers that lend, and who borrows."""

from .borrowing import Borrower, Lease, WorkerFacts, open_borrower
from .leases import LentDevice, Looked
from .worker import RpcLender, Worker, WorkerStatistics, open_rpc_lender, open_worker

__all__ = [
    # lending
    "open_worker",
    "Worker",
    "WorkerStatistics",
    "open_rpc_lender",
    "RpcLender",
    # borrowing
    "open_borrower",
    "Borrower",
    "WorkerFacts",
    "LentDevice",
    "Lease",
    "Looked",
]
