"""The processes of one training, its ranks: who they are, and all that passes between them.

torchrun starts them and, after one has died, starts all of them again (elastic); the network is whole on each, and each
reads its share of the lanes. Rank 0 has the terminal, the clock, the held-out text and the files; what it decides, the
others do. One process alone is `ALONE`: nothing passes, and nothing is computed that it would not compute anyway.

Gradients go through one `all_reduce` of one flat buffer, not through `DistributedDataParallel`, which weighs all ranks
alike: they count targets in unequal numbers (padding, headers), and so sum, number and loss travel in the same buffer.
There is little to overlap with it: a layer's gradient is complete only when its first step has been traced back.
"""

from __future__ import annotations

import os
import platform
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

import torch
from torch import Tensor
from torch import distributed as processes
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]  # it lists neither
from torch.distributed.rendezvous import rendezvous

from lsp_charrnn.errors import SettingError, UserError

_BAD_INPUT: Final = 2  # the exit code of a `UserError`, for the ranks that leave its sentence to rank 0
# How long a rank waits for the others: rank 0 reads files and held-out text meanwhile. The dead are seen at once.
_LONGEST_WAIT: Final = timedelta(minutes=30)

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those of one training.

    Its methods that talk to the others must be called by all, in the same order. They raise `SettingError` where
    another has ended, and `SystemExit` on all but rank 0 where rank 0 raises a `UserError`, which is said once.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # on this machine
    local_size: int = 1
    launch: str | None = None  # names one torchrun over its restarts; None: there is none
    restarts: int = 0

    @property
    def leads(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def join(self, device: str) -> None:
        """Meet the others: by gloo for what lies on the CPU, by NCCL for what lies on a GPU.

        `device` is what --device says. Raises `SettingError` where they can't be found.
        """
        if self.size == 1:
            return
        gpus = device != "cpu" and torch.cuda.is_available()
        try:
            found = rendezvous("env://", self.rank, self.size, timeout=_LONGEST_WAIT)
            store, _, _ = next(found)
            processes.init_process_group(
                "cpu:gloo,cuda:nccl" if gpus else "gloo",
                store=PrefixStore(self._meeting(store), store),
                rank=self.rank,
                world_size=self.size,
                timeout=_LONGEST_WAIT,
            )
        except (RuntimeError, ValueError) as error:
            raise SettingError(
                f"rank {self.rank} of {self.size} cannot find the others ({_reason(error)}): start all with torchrun."
            ) from error

    def _meeting(self, store: Store) -> str:
        """Return a name for what the ranks write into `store` to meet, the same for all, and new.

        torchrun keeps the store over its restarts, and in it the addresses of the processes before: who finds those
        waits for the dead (pytorch issue 135712). The number of restarts is no name: each machine counts its own.
        """
        own = uuid.uuid4().hex
        if not self.leads:
            store.set(f"asks {self.rank}", own)
            name: str = store.get(f"answer to {own}").decode()
            store.set(f"{name} met {self.rank}", "")
            return name
        missing = list(range(1, self.size))
        deadline = time.monotonic() + _LONGEST_WAIT.total_seconds()
        while missing:
            for rank in missing:  # who asks may be one of before: it is answered, and says no more
                if store.check([f"asks {rank}"]):
                    store.set(f"answer to {store.get(f'asks {rank}').decode()}", own)
            missing = [rank for rank in missing if not store.check([f"{own} met {rank}"])]
            if time.monotonic() > deadline:
                raise RuntimeError(f"rank {missing[0]} has not come")
            time.sleep(0.01)
        return own

    def part(self) -> None:
        """Leave the others, when all is well: after an error NCCL would wait for what they never send."""
        if self.size > 1:
            processes.destroy_process_group()

    def device(self, chosen: torch.device) -> torch.device:
        """Return this rank's own device of the kind `chosen`. Raises `SettingError` where there are too few GPUs."""
        if self.size == 1 or chosen.type != "cuda":
            return chosen
        if self.local_rank >= torch.cuda.device_count():
            raise SettingError(
                f"{self.local_size} processes were started on a machine with {torch.cuda.device_count()} GPUs: "
                "give torchrun no larger --nproc-per-node."
            )
        own = torch.device("cuda", self.local_rank)
        torch.cuda.set_device(own)
        return own

    def lanes(self, batch: int) -> range:
        """Return which of `batch` lanes are this rank's. Raises `SettingError` where they can't be split."""
        if batch % self.size:
            raise SettingError(
                f"--batch {batch} cannot be split over {self.size} processes: give a multiple of {self.size}."
            )
        own = batch // self.size
        return range(self.rank * own, (self.rank + 1) * own)

    def first(self, work: Callable[[], T]) -> T:
        """Let rank 0 do `work`, and return what came of it on all."""
        if self.size == 1:
            return work()
        outcome: list[Any] = [None, False]
        error: UserError | None = None
        if self.leads:
            try:
                outcome = [work(), True]
            except UserError as raised:
                error = raised
        with self._together():
            processes.broadcast_object_list(outcome, src=0, device=torch.device("cpu"))
        if error is not None:
            raise error
        if not outcome[1]:
            raise self._silent()
        result: T = outcome[0]
        return result

    def in_turn(self, work: Callable[[], T]) -> T:
        """Let each rank do `work` for itself, the others only once rank 0 has come through it."""
        done: list[T] = []
        self.first(lambda: done.append(work()))
        return done[0] if self.leads else work()

    def shared(self, *values: float) -> tuple[float, ...]:
        """Return rank 0's `values`, whatever this rank's are."""
        if self.size == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        with self._together():
            processes.broadcast(tensor, src=0)
        return tuple(tensor.tolist())

    def make_equal(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite `tensors` by rank 0's: another processor may round an initialisation differently."""
        if self.size == 1:
            return
        with torch.no_grad(), self._together():
            for tensor in tensors:
                processes.broadcast(tensor, src=0)

    def average(self, parameters: Iterable[torch.nn.Parameter], loss: Tensor, counted: int) -> tuple[float, int]:
        """Make the gradients, of this rank's mean `loss` over `counted` targets, those of the mean over all ranks'.

        Return that mean and the number of all targets, exact up to 2**24 of them.
        """
        if self.size == 1:
            return loss.item(), counted
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([*(gradient.flatten() for gradient in gradients), loss.detach().new_ones(2)])
        flat[-2] = loss.detach()
        flat *= counted
        with self._together():
            processes.all_reduce(flat)
        total = int(flat[-1].item())
        flat /= max(1, total)  # a window may hold nothing but headers
        start = 0
        for gradient in gradients:
            gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
            start += gradient.numel()
        return flat[-2].item(), total

    def gathered(self, tensor: Tensor, axis: int) -> Tensor:
        """Return all ranks' tensors of one shape, side by side along `axis` in the ranks' order; on the CPU."""
        if self.size == 1:
            return tensor
        own = tensor.detach().cpu().contiguous()
        parts = [torch.empty_like(own) for _ in range(self.size)]
        with self._together():
            processes.all_gather(parts, own)
        return torch.cat(parts, dim=axis)

    def once(self, error: UserError) -> BaseException:
        """Return what to raise for an `error` that all ranks meet at the same moment."""
        return error if self.leads else self._silent()

    def _silent(self) -> SystemExit:
        """Return what ends this rank without a word, when rank 0 has said it: torchrun ends all once one has ended."""
        with suppress(RuntimeError):
            processes.broadcast(torch.zeros(1), src=0)  # which rank 0 never sends
        return SystemExit(_BAD_INPUT)

    def command(self, arguments: Iterable[str]) -> list[str]:
        """Return how to start this training with `arguments`, the subcommand first; for who wants to do it again."""
        if self.size == 1:
            return ["lsp-charrnn", *arguments]
        machines = self.size // self.local_size
        several = ["--nnodes", str(machines)] if machines > 1 else []
        each = ["--nproc-per-node", str(self.local_size)]
        return ["torchrun", *several, *each, "-m", "lsp_charrnn.train", *list(arguments)[1:]]

    @contextmanager
    def _together(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # gloo's and NCCL's own
            raise SettingError(
                f"rank {self.rank} has lost the others ({_reason(error)}): torchrun starts them again as often as "
                "--max-restarts says, and --resume goes on from the last checkpoint."
            ) from error


ALONE: Final = Ranks()


def ranks_of(environment: Mapping[str, str]) -> Ranks:
    """Return what torchrun says in `environment` of this process. Raises `SettingError` where it makes no sense."""
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return ALONE
    names = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "TORCHELASTIC_RESTART_COUNT": 0}
    values: list[int] = []
    for name, default in names.items():
        value = environment.get(name, str(default))
        if not value.isdecimal():
            raise SettingError(f"the environment's {name} is {value!r}, no number: start with torchrun, or unset it.")
        values.append(int(value))
    if not values[0] < values[1]:
        raise SettingError(
            f"the environment has RANK {values[0]} of WORLD_SIZE {values[1]}: start with torchrun, or unset both."
        )
    rank, size, local_rank, local_size, restarts = values
    launch = environment.get("TORCHELASTIC_RUN_ID")
    if launch == "none":  # torchrun's default; what starts the processes outlives them, restarts included
        launch = f"process {os.getppid()} on {platform.node()}"
    return Ranks(rank, size, local_rank, max(1, local_size), launch, restarts)


def _reason(error: Exception) -> str:
    """Return what an error of torch's says, without the place in its source before and the advice behind."""
    return re.sub(r"^\[[^]]*\] *", "", str(error).strip().partition("\n")[0]).partition(". ")[0].rstrip(".:")
