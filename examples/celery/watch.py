"""Prints what happens to tasks: python watch.py [NUMBER OF TASKS]"""

import sys

from tasks import app

limit = int(sys.argv[1]) if len(sys.argv) > 1 else None


class Watcher(app.events.Receiver):
    done = 0
    state = app.events.State()

    def on_consume_ready(self, *args, **more):
        super().on_consume_ready(*args, **more)
        print("watching", flush=True)

    def on_event(self, event):
        self.state.event(event)
        if event["type"].startswith("task-"):
            print(event["type"], self.state.tasks[event["uuid"]].name, flush=True)
        self.done += event["type"] == "task-succeeded"
        self.should_stop = self.done == limit


with app.connection() as connection:
    watcher = Watcher(connection)
    watcher.handlers["*"] = watcher.on_event
    watcher.capture(limit=None, timeout=None, wakeup=True)
