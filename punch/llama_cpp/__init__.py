"""What llama.cpp's programs can do, learnt from the programs themselves.

Which program to run, and with what, is decided by the backends and the cluster.
"""

from ._build import install_programs, is_built, programs_folder
from ._engines import (
    Engine,
    EngineCheck,
    check_engine,
    choose_engine,
    fastest,
    find_engines,
)
from ._named import Named, read_named
from ._program import (
    Program,
    ask_program,
    find_completion,
    find_rpc_server,
    find_server,
    list_devices,
    list_gpus,
)
from ._rpc_frames import RpcCounts, RpcFrames
from ._rpc_hello import rpc_hello
from ._rpc_protocol import RPC_ENV, RpcDevice, RpcFacts, RpcVersion
from ._rpc_server import MemoryBound, RpcServer, open_rpc_server
from ._speeds import Speeds, measure_device, measure_lent, rescaled

__all__ = [
    "Named",
    "read_named",
    "find_server",
    "Program",
    "ask_program",
    "find_completion",
    "list_gpus",
    "list_devices",
    # ---- RPC ----
    "RpcVersion",
    "RpcDevice",
    "RpcFacts",
    "rpc_hello",
    "find_rpc_server",
    "open_rpc_server",
    "RpcServer",
    "MemoryBound",
    "RpcCounts",
    "RpcFrames",
    "RPC_ENV",
    # ---- how fast ----
    "Speeds",
    "measure_device",
    "measure_lent",
    "rescaled",
    # ---- which there are ----
    "Engine",
    "EngineCheck",
    "find_engines",
    "check_engine",
    "choose_engine",
    "fastest",
    "install_programs",
    "is_built",
    "programs_folder",
]
