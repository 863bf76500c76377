"""The processes of a run as one thing: who this one is, and what all of them agree on."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from copgen_cli.errors import CopgenError, UsageError
from copgen_cli.stages.launch_variables import alone_hint, stop_telling, tell_of_waiting, was_launched

if TYPE_CHECKING:
    from accelerate import Accelerator

COLLECTIVE_TIMEOUT = timedelta(minutes=30)
"""How long a process waits for another that is alive; a dead one is noticed by its closed connection."""


class LostProcessError(CopgenError):
    """Another process of the run is gone."""


@dataclass(frozen=True, slots=True)
class World:
    """One process among those of a run."""

    device: torch.device
    rank: int = 0
    size: int = 1
    accelerator: Accelerator | None = None
    """None where this process is the only one."""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def is_sharded(self) -> bool:
        """Whether each process holds only a part of the network."""
        return self.accelerator is not None and str(self.accelerator.distributed_type).endswith("FSDP")

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.size > 1:
            with noticing_a_lost_process():
                torch.distributed.all_reduce(values)
        return values

    def tell(self, word: str | None) -> str | None:
        """What the main process says, on all of them."""
        if self.size == 1:
            return word
        said = [word]
        with noticing_a_lost_process():
            torch.distributed.broadcast_object_list(said, src=0)
        return said[0]

    def smallest(self, number: int) -> int:
        """The smallest of the numbers that the processes have."""
        if self.size == 1:
            return number
        numbers = torch.tensor(number, device=self.device)
        with noticing_a_lost_process():
            torch.distributed.all_reduce(numbers, op=torch.distributed.ReduceOp.MIN)
        return int(numbers)

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.accelerator is not None:
            with noticing_a_lost_process():
                self.accelerator.wait_for_everyone()

    def leave(self) -> None:
        """Part from the others, once all are ready to."""
        if self.accelerator is not None:
            self.wait()
            self.accelerator.end_training()


def join_world(device: torch.device, timeout: float, tell: Callable[[str], None]) -> World:
    """Meet the other processes of this run, if it was started as one of several; on accelerators, each takes that of
    its local rank.

    Args:
        device: what was asked for; the CPU means gloo.
        timeout: seconds to wait for the others.
        tell: is told for whom this process waits, should that take longer than a moment.

    Raises:
        UsageError: variables of the environment contradict one another, or accelerate's configuration spreads the
            network in a way that is not supported.
        LostProcessError: the others did not come in time.
    """
    if not was_launched():
        return World(device)
    tell_of_waiting(timeout, tell, seconds=min(2.0, timeout / 2))
    try:
        accelerator = _meet(lambda: _accelerator(device), timeout)
    finally:
        stop_telling()
    if accelerator.device.type == "cuda":
        torch.cuda.set_device(accelerator.device)  # of this thread
    kind = accelerator.distributed_type.value
    if kind in ("DEEPSPEED", "MEGATRON_LM", "TP") or (kind == "FSDP" and not accelerator.is_fsdp2):
        raise UsageError(
            f"This run can not be spread by {kind}{' version 1' if kind == 'FSDP' else ''}.",
            hint="Use DDP, or shard with FSDP: `distributed_type: FSDP` and `fsdp_version: 2` in accelerate's file.",
        )
    return World(accelerator.device, accelerator.process_index, accelerator.num_processes, accelerator)


def _accelerator(device: torch.device) -> Accelerator:
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="no",  # autocast and loss scale are those of the step, the same with one process and many
        kwargs_handlers=[
            InitProcessGroupKwargs(timeout=COLLECTIVE_TIMEOUT),
            DistributedDataParallelKwargs(gradient_as_bucket_view=True),  # gradients are not kept twice
        ],
    )


def _meet(join: Callable[[], Accelerator], timeout: float) -> Accelerator:
    """Call what waits for the other processes in a thread: it waits outside of Python, where no signal is heard."""
    joined: list[Accelerator] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            joined.append(join())
        except BaseException as error:
            failed.append(error)

    threads = torch.get_num_threads()
    waiting = threading.Thread(target=run, daemon=True)
    waiting.start()
    deadline = time.monotonic() + timeout
    while waiting.is_alive() and time.monotonic() < deadline:
        waiting.join(0.2)  # in pieces: a signal is heard between two
    if waiting.is_alive():
        raise LostProcessError(f"The other processes did not come within {timeout:g} s.", hint=alone_hint())
    if failed:
        if isinstance(failed[0], ValueError | torch.distributed.DistError):
            raise LostProcessError(f"The processes of this run can not meet: {failed[0]}", hint=alone_hint())
        raise failed[0]
    torch.set_num_threads(threads)  # which accelerate may have changed, for its own thread alone
    return joined[0]


@contextmanager
def noticing_a_lost_process() -> Iterator[None]:
    """Turn the errors that a collective raises when a peer is gone into one that says so."""
    try:
        yield
    except RuntimeError as error:
        sign = re.search(r"(Connection |[Tt]imed out|NCCL )[^\n]*?(?=\. |\n|$)", str(error))
        if sign is None:
            raise
        raise LostProcessError(
            f"Another process of this run is gone: {sign[0]}.",
            hint="Look for its message above; the same command continues from the last checkpoint.",
        ) from error


def gradients_stay_here(model: nn.Module, world: World, *, last: bool) -> AbstractContextManager[Any]:
    """A context in which gradients are not exchanged, except in the last micro-batch of a step."""
    if world.accelerator is None or last:
        return nullcontext()
    return world.accelerator.no_sync(model)
