"""Whose the compute processes are, on a bare machine and in a container, where the driver's pids are the host's."""

from __future__ import annotations

import os
import threading

import pytest
from energy_fakes import FakeGpu, constant, device_of

from benchmark.energy.meters import neighbours as module
from benchmark.energy.meters.neighbours import arriving, neighbours
from benchmark.energy.meters.nvml import NvmlError, Slow

ME, OTHER = os.getpid(), os.getppid()
HOST, NEW, LATER = 2**22 + 5, 2**22 + 6, 2**22 + 7
"""Above the kernel's largest pid: none of them is in our /proc."""


@pytest.fixture
def board(clock, monkeypatch):
    """A board; arrive(before, after) makes our context there, with the driver's list before and after."""
    monkeypatch.setattr(module, "_ARRIVALS", {})
    gpu = FakeGpu(clock, constant(100))

    def arrive(before: tuple[int, ...], after: tuple[int, ...]) -> FakeGpu:
        gpu.pids = before
        with arriving(device_of(gpu)):
            gpu.pids = after
        return gpu

    return arrive


def on(gpu: FakeGpu, *pids: int):
    return neighbours([Slow(compute_pids=pids), Slow()], gpu.uuid)


def test_on_a_bare_machine_others_are_foreign_however_long_they_have_been_there(board):
    gpu = board((OTHER,), (OTHER, ME))
    assert on(gpu, ME) == ([], [], 0)
    assert on(gpu, OTHER, ME) == ([OTHER], [], 0)
    assert on(gpu, ME, HOST) == ([], [], 1), "ended meanwhile, or out of our sight"


def test_in_a_container_what_was_there_before_is_resident_and_what_comes_later_is_foreign(board):
    gpu = board((HOST,), (HOST, NEW))
    assert on(gpu, HOST, NEW) == ([], [HOST], 0)
    assert on(gpu, HOST, NEW, LATER) == ([LATER], [HOST], 0)
    assert on(gpu, NEW) == ([], [], 0), "the resident has gone"


@pytest.mark.parametrize("before", [(OTHER,), (ME,), (OTHER, ME)])
def test_in_a_container_the_hosts_pid_may_be_the_number_of_a_process_here(board, before):
    """Taken at their word, these would be foreign jobs, or ourselves."""
    gpu = board(before, (*before, NEW))
    assert on(gpu, *before, NEW) == ([], sorted(before), 0)
    assert on(gpu, *before, NEW, LATER).foreign == [LATER]


def test_our_own_host_pid_may_be_the_number_of_another_process_here(board):
    gpu = board((), (OTHER,))
    assert on(gpu, OTHER) == ([], [], 0)


def test_a_driver_that_translates_may_name_one_of_our_threads(board):
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        gpu = board((), (thread.native_id,))
        assert on(gpu, thread.native_id) == ([], [], 0)
        assert on(gpu, thread.native_id, OTHER) == ([OTHER], [], 0)
    finally:
        done.set()
        thread.join()


def test_where_we_never_appear_the_first_newcomer_may_be_ourselves(board):
    gpu = board((HOST,), (HOST,))
    assert on(gpu, HOST, NEW) == ([], [HOST], 0)
    assert on(gpu, HOST, NEW, LATER) == ([], [HOST], 1)


def test_two_that_came_together_cannot_be_told_apart(board):
    gpu = board((), (HOST, NEW))
    assert on(gpu, HOST, NEW) == ([], [], 1)


def test_without_knowing_the_time_before_our_context(board):
    gpu = FakeGpu(None, None, uuid="GPU-unknown")
    assert on(gpu, ME, OTHER) == ([OTHER], [], 0)
    assert on(gpu, OTHER) == ([OTHER], [], 0)
    assert on(gpu, HOST) == ([], [], 0), "this may be ourselves"
    assert on(gpu, HOST, NEW) == ([], [], 1)


def test_only_the_first_context_is_an_arrival(board):
    board((HOST,), (HOST, NEW))
    gpu = board((HOST, NEW, LATER), (HOST, NEW, LATER))
    assert on(gpu, HOST, NEW, LATER).foreign == [LATER]


def test_a_driver_that_does_not_list_processes_is_no_error(board, clock, monkeypatch):
    gpu = FakeGpu(clock, constant(100), uuid="GPU-mute")
    monkeypatch.setattr(gpu, "slow", lambda: (_ for _ in ()).throw(NvmlError("unsupported", "no")))
    with arriving(device_of(gpu)):
        pass
    assert on(gpu) == ([], [], 0)


def test_a_context_that_fails_is_no_arrival(clock, monkeypatch):
    monkeypatch.setattr(module, "_ARRIVALS", {})
    with pytest.raises(RuntimeError), arriving(device_of(FakeGpu(clock, constant(100)))):
        raise RuntimeError("CUDA error")
    assert module._ARRIVALS == {}
