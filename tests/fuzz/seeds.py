"""Writes the seed corpora: small, hand-picked inputs of each target, made by code. Usage: seeds.py FOLDER"""

import struct
import sys
from pathlib import Path


def short(text):
    return bytes([len(text)]) + text


def long(text):
    return struct.pack(">I", len(text)) + text


def entry(key, letter, value):
    return short(key) + letter + value


TABLES = [
    b"",
    entry(b"a", b"t", b"\x01"),
    entry(b"i", b"I", struct.pack(">i", -5)) + entry(b"l", b"l", struct.pack(">q", 2**40)),
    entry(b"b", b"b", b"\xff") + entry(b"B", b"B", b"\xff") + entry(b"s", b"s", b"\0\1") + entry(b"u", b"u", b"\0\1"),
    entry(b"f", b"f", struct.pack(">f", 1.5)) + entry(b"d", b"d", struct.pack(">d", 1.5)),
    entry(b"D", b"D", b"\x02" + struct.pack(">I", 314)) + entry(b"T", b"T", struct.pack(">Q", 1700000000)),
    entry(b"S", b"S", long(b"text")) + entry(b"x", b"x", long(b"\0\1")) + entry(b"V", b"V", b""),
    entry(b"A", b"A", long(b"I\0\0\0\1S" + long(b"two"))),
    entry(b"F", b"F", long(entry(b"in", b"F", long(entry(b"deep", b"V", b""))))),
]

METHODS = [
    b"\0\x32\0\x0a\0\0" + short(b"q") + b"\0" + long(b""),  # queue.declare
    b"\0\x32\0\x14\0\0" + short(b"q") + short(b"amq.topic") + short(b"a.#") + b"\0" + long(b""),  # queue.bind
    b"\0\x28\0\x0a\0\0" + short(b"x") + short(b"headers") + b"\0" + long(TABLES[2]),  # exchange.declare
    b"\0\x3c\0\x14\0\0" + short(b"q") + short(b"tag") + b"\0" + long(b""),  # basic.consume
    b"\0\x3c\0\x46\0\0" + short(b"q") + b"\0",  # basic.get
    b"\0\x3c\0\x50" + struct.pack(">Q", 1) + b"\0",  # basic.ack
    b"\0\x3c\0\x78" + struct.pack(">Q", 1) + b"\x03",  # basic.nack
    b"\0\x3c\0\x0a" + struct.pack(">IH", 0, 1) + b"\x01",  # basic.qos
    b"\0\x3c\0\x1e" + short(b"tag") + b"\0",  # basic.cancel
    b"\0\x3c\0\x6e\x01",  # basic.recover
    b"\0\x55\0\x0a\0",  # confirm.select
    b"\0\x32\0\x28\0\0" + short(b"q") + b"\0",  # queue.delete
    b"\0\x14\0\x28" + struct.pack(">H", 200) + short(b"bye") + b"\0\0\0\0",  # channel.close
]

PUBLISH = b"\0\x3c\0\x28\0\0" + short(b"") + short(b"q") + b"\x01"


def header(size, flags=0, values=b""):
    return b"\0\x3c\0\0" + struct.pack(">QH", size, flags) + values


def frame(kind, channel, payload):
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def packed(kind, channel, payload):
    """A frame as the target `connection` takes it."""
    return bytes([kind, channel, len(payload)]) + payload


def main(folder):
    message = [(1, PUBLISH), (2, header(2, 0x2000, long(TABLES[1]))), (3, b"hi")]
    corpora = {
        "tables": TABLES,
        "frames": [frame(1, 1, method) for method in METHODS] + [b"".join(frame(k, 1, p) for k, p in message)],
        "connection": [
            b"".join(packed(1, 1, method) for method in METHODS),
            packed(1, 1, METHODS[0]) + b"".join(packed(k, 1, p) for k, p in message) + packed(1, 1, METHODS[4]),
            packed(1, 1, METHODS[0]) + packed(1, 1, METHODS[3]) + b"".join(packed(k, 2, p) for k, p in message),
            packed(1, 1, METHODS[10]) + b"".join(packed(k, 1, p) for k, p in message * 3),
            packed(8, 0, b"") + packed(0xFF, 0, b"\x01\0\1\xff\xff\xff\xff"),
        ],
    }
    for name, seeds in corpora.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds):
            (folder / name / f"seed-{number}").write_bytes(seed)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
