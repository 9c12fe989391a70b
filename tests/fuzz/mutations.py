"""Random changes to bytes, from seeded random numbers: the same seed gives the same inputs."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

__all__ = ["LONGEST", "mutated"]

LONGEST = 8192
"""Bytes of a mutated input. Longer ones are for the tests of inputs that are made to be slow."""
_EDGES = (0x00, 0x01, 0x09, 0x0A, 0x20, 0x22, 0x2C, 0x2E, 0x30, 0x39, 0x3F, 0x40, 0x7F, 0x80, 0xC0, 0xFF)


def mutated(data: bytes, others: Sequence[bytes], words: Sequence[bytes], rng: Random) -> bytes:
    """`data` with one to six changes. `others` are inputs that pieces are taken from, `words` pieces of interest."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        begin, end = sorted((rng.randint(0, len(changed)), rng.randint(0, len(changed))))
        end = min(end, begin + rng.choice((1, 4, 16, 64)))
        match rng.randrange(8):
            case 0 if changed:
                changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
            case 1 if changed:
                changed[rng.randrange(len(changed))] = rng.choice(_EDGES)
            case 2:
                changed[begin:begin] = rng.choice(words)
            case 3:
                changed[begin:end] = rng.choice(words)
            case 4:
                del changed[begin:end]
            case 5:
                changed[begin:begin] = changed[begin:end] * rng.choice((1, 2, 8, 200))
            case 6:
                other = rng.choice(others)
                changed[begin:] = other[rng.randint(0, len(other)) :]
            case _:
                changed[begin:end] = rng.randbytes(end - begin)
        del changed[LONGEST:]
    return bytes(changed)
