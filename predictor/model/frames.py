"""Frames between a process and the one that runs its model: length, kind, and bytes."""

import asyncio
import enum
import struct

_HEAD = struct.Struct("!QB")  # bytes of the body; kind
PART = 2**18  # bytes that are copied in one step of a loop


class Kind(enum.IntEnum):
    #: To the child: `["id", deadline, {ids of its lines in the log}]`, a line break, and the input.
    RUN = 1
    CANCEL = 2
    READY = 3  # from the child
    REFUSED = 4  # why the model cannot be loaded
    PROGRESS = 5
    OUTPUT = 6
    RESULT = 7
    ERROR = 8  # `["code", "message", "traceback"]`


def frame(kind: Kind, body: bytes) -> bytes:
    return _HEAD.pack(len(body), kind) + body


async def write(writer: asyncio.StreamWriter, kind: Kind, head: bytes, body: bytes = b"") -> None:
    """Write head and body as one frame, step by step. Raises OSError."""
    writer.write(_HEAD.pack(len(head) + len(body), kind) + head + body[:PART])
    for start in range(PART, len(body), PART):
        await writer.drain()
        writer.write(memoryview(body)[start : start + PART])


async def read(reader: asyncio.StreamReader, limit: int) -> tuple[Kind, bytes]:
    """The next frame. Raises EOFError, and ValueError if it is none, or larger than `limit`."""
    size, kind = _HEAD.unpack(await reader.readexactly(_HEAD.size))
    if size > limit:
        raise ValueError(f"a frame of {size} bytes")
    parts = []
    while size:
        parts.append(await reader.read(min(size, PART)))
        if not parts[-1]:
            raise EOFError
        size -= len(parts[-1])
    # A thread joins megabytes: it does not hold the interpreter's lock meanwhile.
    body = b"".join(parts) if len(parts) < 8 else await asyncio.to_thread(b"".join, parts)
    return Kind(kind), body
