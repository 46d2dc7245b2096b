"""One run on many processes: each takes its share of every minibatch, and all make the same update of the whole.

With g_s the update that sample s asks for and B the used samples of the global minibatch, the mean of one process

    dW = 1/|B| sum_{s in B} g_s  =  1/|B| sum_r |B_r| dW_r

is put together from each process's own mean dW_r over its used samples B_r, so that n processes differ from one by
the order of the sums alone. A `Group` of one process does nothing; `joined` makes one of many where torchrun's
environment variables ask for it, and torch.distributed is imported nowhere else.
"""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from circuitlab.dynamics.equations import Fields
from circuitlab.dynamics.preconditioned import Minibatch
from circuitlab.errors import CircuitError, ProcessError
from circuitlab.learn.base import Outcome
from circuitlab.solve.base import Solution

Value = TypeVar("Value")

FAILED, CLOSED, LEFT = "failed", "closed", "left"
"""Notices in the group's store: a process failed; process 0 has left its run file; how many of the others left."""
LONGEST_WAIT = timedelta(minutes=30)
"""How long a process waits for the others before it gives them up."""
SECONDS_TO_CLOSE = 20.0
"""How long others wait for process 0 to write its file to the end; torchrun kills after 30 s."""
SECONDS_TO_LEAVE = 5.0
"""How long process 0, which may keep the store, waits for the others."""


class Group:
    """The processes of a run; this one is the only one, and every method leaves its arguments as they are.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        stopping: whether all processes know that one of them was asked to stop.
    """

    rank = 0
    size = 1
    stopping = False

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """The device of this process, for the one an experiment names."""
        return name

    def share(self, count: int) -> slice:
        """This process's part of so many samples: consecutive, and as even as can be."""
        return _share(count, self.size, self.rank)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """The sum over processes of float64 numbers, the same to the bit in each."""
        return values

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Put the sum over processes in place of every tensor."""

    def gather(self, columns: Tensor, count: int) -> Tensor | None:
        """All shares of a [row, sample] tensor side by side, [row, count], in process 0; None in others."""
        return columns

    def from_first(self, value: Callable[[], Value]) -> Value:
        """What a function gives in process 0, in all processes."""
        return value()

    def verify(self, tensors: Mapping[str, Tensor], what: str) -> None:
        """Make sure that tensors are the same to the bit in all processes.

        Raises:
            ProcessError: they are not.
        """


ALONE = Group()


class Processes(Group):
    """A process among many, as torchrun started them.

    Nothing here blocks for good: while a process waits for the others, it looks whether one of them has failed.

    Raises:
        CircuitError: the environment variables do not describe a group.
        ProcessError: in any method, where another process failed or is gone.
    """

    def __init__(self) -> None:
        import torch.distributed as distributed
        from torch.distributed.distributed_c10d import PrefixStore
        from torch.distributed.rendezvous import rendezvous

        names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        missing = [name for name in names if not os.environ.get(name)]
        if missing:
            raise CircuitError(
                f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(missing)} is not set; start many processes "
                "with torchrun, or unset WORLD_SIZE for one"
            )
        self.local_rank = int(os.environ.get("LOCAL_RANK", 0))
        self.distributed = distributed
        cuda = torch.cuda.is_available() and distributed.is_nccl_available()
        if cuda and self.local_rank < torch.cuda.device_count():
            torch.cuda.set_device(self.local_rank)
        try:
            self.store, self.rank, self.size = next(iter(rendezvous("env://", timeout=LONGEST_WAIT)))
            distributed.init_process_group(
                "cpu:gloo,cuda:nccl" if cuda else "gloo",
                store=PrefixStore("groups", self.store),
                rank=self.rank,
                world_size=self.size,
                timeout=LONGEST_WAIT,
            )
        except (RuntimeError, ValueError) as error:
            raise CircuitError(
                f"the {os.environ['WORLD_SIZE']} processes did not find each other: {str(error).splitlines()[0]}"
            ) from error

    def device(self, name: str) -> str:
        kind, _, number = name.partition(":")
        if kind == "mps" or number:
            raise CircuitError(
                f"device: {name} is one device, and the run has {self.size} processes; allowed here: cpu, cuda"
            )
        if kind == "cuda" and torch.cuda.is_available():
            there = torch.cuda.device_count()
            if self.local_rank >= there:
                raise CircuitError(
                    f"device: cuda: this machine has {there} GPUs and more processes; start one process per GPU "
                    f"(--nproc-per-node {there}), or give device: cpu"
                )
            return f"cuda:{self.local_rank}"
        return name

    def sum(self, values: np.ndarray) -> np.ndarray:
        total = torch.from_numpy(np.array(values, dtype=np.float64))
        self._wait(self.distributed.all_reduce(total, async_op=True))
        return total.numpy()

    def add(self, tensors: Iterable[Tensor]) -> None:
        tensors = list(tensors)
        works = [self.distributed.all_reduce(tensor, async_op=True) for tensor in tensors]
        for work in works:
            self._wait(work)

    def gather(self, columns: Tensor, count: int) -> Tensor | None:
        shares = [_share(count, self.size, rank) for rank in range(self.size)]
        widths = [share.stop - share.start for share in shares]
        padded = columns.new_zeros(columns.shape[0], max(widths))
        padded[:, : widths[self.rank]] = columns[:, : widths[self.rank]]
        parts = [torch.empty_like(padded) for _ in widths] if self.leads else None
        self._wait(self.distributed.gather(padded, parts, dst=0, async_op=True))
        if parts is None:
            return None
        return torch.cat([part[:, :width] for part, width in zip(parts, widths, strict=True)], 1)

    def from_first(self, value: Callable[[], Value]) -> Value:
        found = value() if self.leads else None
        data = np.frombuffer(pickle.dumps(found) if self.leads else b"", dtype=np.uint8)
        buffer = torch.zeros(int(self.sum(np.array(len(data)))), dtype=torch.uint8)
        if self.leads:
            buffer.copy_(torch.from_numpy(data.copy()))
        self._wait(self.distributed.broadcast(buffer, src=0, async_op=True))
        return pickle.loads(buffer.numpy().tobytes())

    def verify(self, tensors: Mapping[str, Tensor], what: str) -> None:
        sums = torch.stack([_checksum(tensor).cpu() for tensor in tensors.values()])
        both = torch.stack([sums, -sums])
        self._wait(self.distributed.all_reduce(both, self.distributed.ReduceOp.MAX, async_op=True))
        differing = [
            name for name, same in zip(tensors, (both[0] == -both[1]).tolist(), strict=True) if not same
        ]
        if differing:
            raise ProcessError(
                f"{what} {', '.join(differing[:5])} differ between the {self.size} processes; use machines of one kind "
                "with the same versions of circuitlab, torch and numpy, the same files and the same data"
            )

    def _wait(self, work: Any) -> None:
        """Wait for a collective operation, unless a process fails meanwhile."""
        began = looked = time.monotonic()
        while not work.is_completed():
            now = time.monotonic()
            time.sleep(0 if now - began < 0.002 else 5e-5 if now - began < 0.1 else 2e-3)
            if now - looked > 0.5:
                looked = now
                if self._noticed(FAILED):
                    raise ProcessError("another process failed")
        try:
            work.wait()
        except RuntimeError as error:
            raise ProcessError("another process of this run is gone") from error

    def _noticed(self, notice: str) -> bool:
        try:
            return self.store.check([notice])
        except RuntimeError as error:
            raise ProcessError("the process that keeps this run together is gone") from error

    def first_to_fail(self) -> bool:
        """Give notice of this process's failure to the others; whether none was before it."""
        mine = f"{self.rank}"
        try:
            return self.store.compare_set(FAILED, "", mine).decode() == mine
        except RuntimeError:
            return True

    def close(self, failed: bool) -> None:
        """Leave the group, after process 0 has written its file to the end, and process 0 last of all."""
        with suppress(RuntimeError, ProcessError):
            if self.leads:
                self.store.set(CLOSED, "yes")
                self._until(lambda: self.store.add(LEFT, 0) >= self.size - 1, SECONDS_TO_LEAVE)
            else:
                self._until(lambda: self._noticed(CLOSED), SECONDS_TO_CLOSE)
                self.store.add(LEFT, 1)
            if not failed:
                self.distributed.destroy_process_group()

    def _until(self, done: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not done() and time.monotonic() < end:
            time.sleep(0.02)


@contextmanager
def joined() -> Iterator[Group]:
    """The group that the environment describes: many processes under torchrun, else this one alone.

    A failure in one process ends all of them; the first one's error passes through, to be told.

    Raises:
        ProcessError: without text, where another process tells of the failure.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) <= 1:
        yield Group()
        return
    group = Processes()
    failed = True
    try:
        yield group
        failed = False
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt) and group.stopping
        failed = not stopped
        if failed and not group.first_to_fail() and not isinstance(error, KeyboardInterrupt):
            raise ProcessError("") from None
        raise
    finally:
        group.close(failed)


class SharedMinibatch(Minibatch):
    """A minibatch of so many samples, shared by the processes of a group; all of them call each method in turn.

    A process whose share is empty holds a sample that counts for nothing.
    """

    def __init__(self, group: Group, count: int) -> None:
        share = group.share(count)
        self.group, self.count, self.width = group, count, share.stop - share.start
        self.fraction = max(self.width, 1) / count

    def mean(self, values: Tensor) -> Tensor:
        total = values[:, : self.width].sum(1, keepdim=True)
        self.group.add([total])
        return total / self.count

    def agreed(self, *numbers: float) -> list[float]:
        mine = np.array(numbers) * self.width if self.width else np.zeros(len(numbers))
        return (self.group.sum(mine) / self.count).tolist()


@dataclass(frozen=True)
class WholeOutcome(Outcome):
    """What a rule found on a minibatch over all processes.

    All numbers per sample are those of the whole minibatch, on the CPU; `fields` and `state` of `free` and `credit`
    hold no units ([0, sample]) where no observer asked for them.

    Args:
        cost: H of every sample, [sample].
    """

    cost: Tensor | None = None

    @property
    def control_cost(self) -> Tensor:
        assert self.cost is not None
        return self.cost


def whole(
    group: Group, outcome: Outcome, count: int, wanted: bool, stop: bool, right: int
) -> tuple[Outcome, int]:
    """The outcome of a whole minibatch, from each process's outcome on its share of it.

    A process whose share is empty gives the outcome of any sample, which is left out.

    Args:
        outcome: on this process's share; its updates are used up.
        count: samples of the whole minibatch.
        wanted: whether an observer of this process asks for the activity, phi, psi and u of all samples.
        stop: whether this process was asked to stop; afterwards `group.stopping` says whether any was.
        right: classes told right in this process's share.

    Returns:
        The outcome, with the mean of the updates over the used samples of all processes and, in process 0, the
        activity where it was asked for; and the classes told right in all of the minibatch.
    """
    share = group.share(count)
    width = share.stop - share.start
    per_sample = _numbers(outcome)
    table = np.zeros((len(per_sample), count))
    table[:, share] = torch.stack([row[:width].double().cpu() for row in per_sample]).numpy()
    used = int(outcome.used[:width].sum())
    checks = (outcome.energy_checked, outcome.energy_lowered) if width else (0, 0)
    total = group.sum(np.concatenate([table.ravel(), [right if width else 0, stop, wanted, used, *checks]]))
    right, asked, wants, all_used, *checks = (int(number) for number in total[-6:])
    group.stopping = group.stopping or asked > 0
    for update in outcome.updates.values():
        if used:
            update.mul_(used)
        else:
            update.zero_()
    group.add(outcome.updates.values())
    for update in outcome.updates.values():
        update.div_(max(all_used, 1))
    rows = [
        torch.from_numpy(row.copy()).to(like.dtype)
        for row, like in zip(total[:-6].reshape(table.shape), per_sample, strict=True)
    ]
    both = [outcome.free.fields, outcome.credit.fields]
    empty = both[0].phi.new_zeros(0, count)
    fields = [Fields(empty, empty, empty)] * 2
    if wants:
        stacked = torch.cat([part for f in both for part in (f.phi, f.psi, f.u)])
        gathered = group.gather(stacked, count)
        if gathered is not None:
            parts = gathered.split([len(part) for f in both for part in (f.phi, f.psi, f.u)])
            fields = [Fields(*parts[:3]), Fields(*parts[3:])]
    loss, cost, counted, *rest = rows
    free = _solution(outcome.free, fields[0], rest[:5], empty)
    credit = _solution(outcome.credit, fields[1], rest[5:], empty)
    return WholeOutcome(
        outcome.updates, loss, free, credit, counted, None, checks[0], checks[1], False, cost
    ), right


def _numbers(outcome: Outcome) -> list[Tensor]:
    """Everything that an outcome says of each sample, [sample] each; `whole` takes it apart in the same order."""
    parts = [
        (s.converged, s.residual, s.iterations, s.products, s.kinks) for s in (outcome.free, outcome.credit)
    ]
    return [outcome.loss, outcome.control_cost, outcome.used, *parts[0], *parts[1]]


def _solution(like: Solution, fields: Fields, rows: list[Tensor], state: Tensor) -> Solution:
    converged, residual, iterations, products, kinks = rows
    return replace(
        like,
        fields=fields,
        state=state,
        converged=converged,
        residual=residual,
        iterations=iterations,
        products=products,
        kinks=kinks,
    )


def _share(count: int, size: int, rank: int) -> slice:
    part, left = divmod(count, size)
    start = rank * part + min(rank, left)
    return slice(start, start + part + (rank < left))


def _checksum(tensor: Tensor) -> Tensor:
    """Sum of a tensor's bits, as integers, modulo 2^62."""
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return tensor.detach().contiguous().view(bits).sum(dtype=torch.int64) % 2**62
