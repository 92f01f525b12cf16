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

TX_SELECT, TX_COMMIT, TX_ROLLBACK = (b"\0\x5a\0" + bytes([method]) for method in (10, 20, 30))
RECOVER_ASYNC = b"\0\x3c\0\x64\x01"
CANCEL_OK = b"\0\x3c\0\x1f" + short(b"tag")
UPDATE_SECRET = b"\0\x0a\0\x46" + long(b"secret") + short(b"reason")
DECLARE_DURABLE = b"\0\x32\0\x0a\0\0" + short(b"d") + b"\x12" + long(b"")  # durable, nowait
CONSUME_REPLIES = b"\0\x3c\0\x14\0\0" + short(b"amq.rabbitmq.reply-to") + short(b"replies") + b"\x02" + long(b"")
DECLARE_REPLIES = b"\0\x32\0\x0a\0\0" + short(b"amq.rabbitmq.reply-to") + b"\0" + long(b"")
# What the target does itself, see src/connection.rs.
ANSWER, ANSWER_WITHOUT_STORE, REPLY, OTHER_CLIENT = 0xFE, 0xFD, 0xFC, 0xFB

# Words of the protocol for the fuzzer: methods by their numbers, names that mean something, letters of field values.
METHOD_NUMBERS = {
    10: (10, 11, 20, 21, 30, 31, 40, 41, 50, 51, 60, 61, 70, 71),
    20: (10, 11, 20, 21, 40, 41),
    30: (10, 11),
    40: (10, 11, 20, 21, 30, 31, 40, 51),
    50: (10, 11, 20, 21, 30, 31, 40, 41, 50, 51),
    60: (10, 11, 20, 21, 30, 31, 40, 50, 60, 70, 71, 72, 80, 90, 100, 110, 111, 120),
    85: (10, 11),
    90: (10, 11, 20, 21, 30, 31),
}
WORDS = (
    b"q d x tag replies amq.rabbitmq.reply-to amq.rabbitmq.reply-to. amq.rabbitmq.trace amq.direct amq.fanout amq.topic "
    b"amq.headers fanout topic headers direct x-match all any all-with-x alternate-exchange CC BCC x-priority "
    b"x-message-ttl x-expires x-max-length x-max-length-bytes x-overflow reject-publish drop-head reject-publish-dlx "
    b"x-dead-letter-exchange x-dead-letter-routing-key x-max-priority x-single-active-consumer x-delivery-limit "
    b"x-queue-type classic quorum x-consistent-hash x-random x-modulus-hash x-recent-history x-delayed-message "
    b"x-delayed-type x-delay x-death x-consumer-timeout # * a.#"
).split()

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
    persistent = [(1, PUBLISH.replace(b"q", b"d")), (2, header(2, 0x1000, b"\x02")), (3, b"hi")]
    request = [(1, PUBLISH), (2, header(2, 0x0200, short(b"amq.rabbitmq.reply-to"))), (3, b"hi")]
    corpora = {
        "tables": TABLES,
        "frames": [frame(1, 1, method) for method in METHODS] + [b"".join(frame(k, 1, p) for k, p in message)],
        "connection": [
            b"".join(packed(1, 1, method) for method in METHODS),
            packed(1, 1, METHODS[0]) + b"".join(packed(k, 1, p) for k, p in message) + packed(1, 1, METHODS[4]),
            packed(1, 1, METHODS[0]) + packed(1, 1, METHODS[3]) + b"".join(packed(k, 2, p) for k, p in message),
            packed(1, 1, METHODS[10]) + b"".join(packed(k, 1, p) for k, p in message * 3),
            packed(1, 1, METHODS[0])
            + packed(1, 1, TX_SELECT)
            + b"".join(packed(k, 1, p) for k, p in message * 2)
            + packed(1, 1, TX_COMMIT)
            + packed(1, 1, METHODS[4])
            + packed(1, 1, METHODS[5])
            + packed(1, 1, TX_ROLLBACK)
            + packed(1, 1, METHODS[5])
            + packed(1, 1, TX_COMMIT),
            packed(1, 1, DECLARE_DURABLE)
            + packed(1, 1, TX_SELECT)
            + b"".join(packed(k, 1, p) for k, p in persistent)
            + packed(1, 1, TX_COMMIT)
            + packed(ANSWER_WITHOUT_STORE, 0, b"")
            + packed(1, 2, METHODS[0])
            + packed(ANSWER, 0, b"")
            + packed(1, 1, RECOVER_ASYNC)
            + packed(1, 1, METHODS[12]),
            packed(1, 1, METHODS[0])
            + packed(1, 1, CONSUME_REPLIES)
            + b"".join(packed(k, 1, p) for k, p in request)
            + packed(1, 1, METHODS[4])
            + packed(OTHER_CLIENT, 0, b"")
            + packed(REPLY, 1, b"answer")
            + packed(OTHER_CLIENT, 0, b"")
            + packed(1, 1, DECLARE_REPLIES)
            + packed(1, 1, METHODS[8])
            + packed(1, 1, METHODS[12]),
            packed(1, 1, METHODS[0]) + packed(1, 1, METHODS[3]) + packed(1, 0, UPDATE_SECRET) + packed(1, 1, CANCEL_OK),
            packed(8, 0, b"") + packed(0xFF, 0, b"\x01\0\1\xff\xff\xff\xff"),
        ],
    }
    for name, seeds in corpora.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds):
            (folder / name / f"seed-{number}").write_bytes(seed)
    methods = [struct.pack(">HH", kind, number) for kind, numbers in METHOD_NUMBERS.items() for number in numbers]
    words = [*methods, *(short(word) for word in WORDS), *WORDS]
    escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in words)
    (folder / "words.dict").write_text("".join(f'"{word}"\n' for word in escaped))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
