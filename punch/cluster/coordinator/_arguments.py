"""Writes the arguments with which llama-server is the head of a split. No I/O.

What makes a split over a network usable is in these flags; see docs/split.md for what each of them
is worth. A flag that a build does not know is left out where it only makes the split faster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...exceptions import ConfigurationError
from ...llama_cpp import Program
from ...placement import Plan

# Anchored: `output` alone is also a part of `attn_output`, of every layer.
_OUTPUT = r"^output\.weight=CPU"
_TIED = "token_embd=CPU"


def split_arguments(
    program: Program, plan: Plan, endpoints: Sequence[tuple[str, Sequence[str]]]
) -> list[str]:
    """The arguments of a head.

    Args:
      program: The head's program.
      plan: What lies where.
      endpoints: For each worker, in the order of ``--rpc``, where the head reaches its server, and
        the ids of the devices which that lists, in its order.

    Raises:
      ConfigurationError: if the program cannot be a head.

    """
    for flag in ("--rpc", "--device", "--tensor-split"):
        if endpoints and not program.supports(flag):
            raise ConfigurationError(
                f"{program.path} has no {flag}: it was built without RPC, and cannot share a model "
                "with other machines; `punch engine install` gets one that can"
            )
    names = device_names(endpoints)
    listed = [names.get(share.device, share.device) for share in plan.listed]
    arguments = ["--n-gpu-layers", str(plan.gpu_layers), "--ubatch-size", str(plan.micro_batch)]
    if endpoints:
        arguments += ["--rpc", ",".join(endpoint for endpoint, _ in endpoints)]
    if listed:
        arguments += ["--device", ",".join(listed)]
        arguments += ["--tensor-split", ",".join(map(str, plan.tensor_split))]
    # It would ask every device for its memory, and move layers away from where they were planned.
    arguments += ["-fit", "off"] if program.supports("-fit") else []
    # A cache of prompts in the head's memory: each new one would bring a whole context over links.
    arguments += ["--cache-ram", "0"] if program.supports("--cache-ram") else []
    if plan.output_on_head:
        arguments += ["--override-tensor", _TIED if plan.is_tied else _OUTPUT]
    return arguments + _speculation(program, plan)


def _speculation(program: Program, plan: Plan) -> list[str]:
    found = plan.speculation
    if found is None:
        return []
    size = f"--spec-{found.kind}-size"
    flags = ["--spec-type", f"{size}-n", f"{size}-m"]
    if not all(map(program.supports, flags)):
        return []
    values = [found.kind, str(found.match), str(found.draft)]
    return [word for pair in zip(flags, values, strict=True) for word in pair]


def device_names(endpoints: Sequence[tuple[str, Sequence[str]]]) -> Mapping[str, str]:
    """What the head calls each device of its workers, by its id: it counts them through."""
    ids = [device for _, devices in endpoints for device in devices]
    return {device: f"RPC{number}" for number, device in enumerate(ids)}
