"""What the worker and its child processes say to one another.

The nursery gets packets of REQUEST over its control socket, and answers each with an
ANSWER. START with a socket beside it starts a child that works on that socket and gives
its process id. WAIT gives the exit code of the child with that id, as subprocess has it,
and the most memory it had in use, in bytes.

A child gets IMAGE (length, the bytes of memory that it may have meanwhile, 0 for any, and
whether to add crops) and an image, and answers with LENGTH and an Encoded or a Refused.
"""

from __future__ import annotations

import struct

import msgspec
from imageprocessing_contract.request import Compression

IMAGE = struct.Struct("<IQ?")
LENGTH = struct.Struct("<I")
REQUEST = struct.Struct("<ci")
ANSWER = struct.Struct("<iq")
START, WAIT = b"S", b"W"
OUT_OF_MEMORY = 3
"""Exit code of a child that could not get the memory that an image takes."""


class Settings(msgspec.Struct, frozen=True):
    """The same for every child of a nursery."""

    compression: Compression
    max_pixels: int
