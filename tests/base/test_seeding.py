"""Randomness is a function of named keys."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from lesion_core.seeding import generator, granted_threads, key_to_int, make_deterministic

KEYS = st.lists(st.one_of(st.integers(), st.text(max_size=8)), min_size=1, max_size=4)


def test_known_value_does_not_drift():
    # written down once: another value would silently change every run
    assert key_to_int(0, "augment", 1, 2) == 0x5FA0ED3F4C22369990BD280745736C8F
    assert generator(7, "x").integers(1 << 30, size=3).tolist() == [537597802, 996591211, 1059035027]


@given(KEYS, KEYS)
def test_different_keys_differ(a, b):
    assert (key_to_int(*a) == key_to_int(*b)) == (list(map(repr, a)) == list(map(repr, b)))


def test_streams_look_independent():
    a = generator(0, "augment", 0).normal(size=20_000)
    b = generator(0, "augment", 1).normal(size=20_000)
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.03


def test_a_job_takes_no_more_threads_than_snakemake_gave_it(monkeypatch, capsys):
    before = torch.get_num_threads()
    try:
        for given, asked, taken in (("2", 8, 2), ("8", 2, 2), ("", 3, 3)):
            monkeypatch.setenv("OMP_NUM_THREADS", given)
            make_deterministic(asked)
            assert torch.get_num_threads() == granted_threads(asked) == taken
            assert ("2 of 8 threads" in capsys.readouterr().err) == (asked == 8)
    finally:
        torch.set_num_threads(before)
