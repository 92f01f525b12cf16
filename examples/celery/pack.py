"""Asks for something to be packed and waits for it: python pack.py SECONDS"""

import sys

from tasks import pack

result = pack.delay(float(sys.argv[1]))
print("asked", flush=True)
print(result.get(timeout=60), flush=True)
