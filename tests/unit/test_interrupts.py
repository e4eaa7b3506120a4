"""Requests to stop are counted, not raised, until somebody insists."""

import os
import signal
import threading

import pytest

from rlfd.interrupts import StopSignal


def test_requests_are_counted_and_the_second_breaks_in():
    before = signal.getsignal(signal.SIGINT)
    with StopSignal() as stop:
        assert not stop.received
        os.kill(os.getpid(), signal.SIGTERM)
        assert (stop.received, stop.requests) == (True, 1)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_endless_patience():
    with StopSignal(patience=None) as stop:
        for _ in range(5):
            os.kill(os.getpid(), signal.SIGINT)
    assert stop.requests == 5


def test_a_terminal_that_goes_away_is_a_request_but_not_with_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.requests == 1
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.requests == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_outside_of_the_main_thread_nobody_listens():
    before, inside = signal.getsignal(signal.SIGINT), []

    def work():
        with StopSignal():
            inside.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [before]
