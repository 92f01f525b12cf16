"""Asks for work of every kind."""

import time

from actors import broker, file, phone, remind, shred

file.send("a letter")
remind.send_with_options(args=("tea", time.time()), delay=1000)
phone.send("Ada")
shred.send("a contract")

# Until all of it is done; Dramatiq counts delayed messages, too.
broker.join("default", timeout=30_000)
