"""The broker as pika's users meet it: the tutorials, acks, confirms, returns, limits and refusals.

Run by `tests/run`, or by hand: AMQP_HOST=127.0.0.1 AMQP_PORT=5672 python -m unittest discover tests/clients/pika
"""

import os
import signal
import subprocess
import sys
import threading
import time
import unittest
import uuid

import pika
import pika.exceptions

HOST = os.environ.get("AMQP_HOST", "127.0.0.1")
PORT = int(os.environ.get("AMQP_PORT", "5672"))
IS_OURS = os.environ.get("AMQP_TARGET", "broker") == "broker"
DEADLINE = 20


def parameters(user="guest", password="guest", **more):
    credentials = pika.PlainCredentials(user, password)
    return pika.ConnectionParameters(
        HOST, PORT, credentials=credentials, socket_timeout=DEADLINE, blocked_connection_timeout=DEADLINE, **more
    )


class Suite(unittest.TestCase):
    def setUp(self):
        self.connection = self.connect()
        self.channel = self.connection.channel()
        self.prefix = "pika." + uuid.uuid4().hex[:12]

    def connect(self, **more):
        connection = pika.BlockingConnection(parameters(**more))
        self.addCleanup(lambda: connection.is_open and connection.close())
        return connection

    def name(self, part):
        return f"{self.prefix}.{part}"

    def queue(self, part="q", **more):
        queue = self.channel.queue_declare(self.name(part), **more).method.queue
        self.addCleanup(self.delete_queue, queue)
        return queue

    def exchange(self, kind, part="x", **more):
        name = self.name(part)
        self.channel.exchange_declare(name, kind, **more)
        self.addCleanup(self.delete_exchange, name)
        return name

    def delete_queue(self, queue):
        with pika.BlockingConnection(parameters()) as connection:
            connection.channel().queue_delete(queue)

    def delete_exchange(self, exchange):
        with pika.BlockingConnection(parameters()) as connection:
            connection.channel().exchange_delete(exchange)

    def take(self, queue, count, channel=None, **more):
        """The next `count` messages of a queue as (method, properties, body)."""
        taken = []
        for delivery in (channel or self.channel).consume(queue, inactivity_timeout=DEADLINE, **more):
            if delivery[0] is None:
                self.fail(f"{count - len(taken)} messages are missing in {queue}")
            taken.append(delivery)
            if len(taken) == count:
                return taken

    def bodies(self, queue):
        """Everything that is ready now."""
        bodies = []
        while True:
            method, _, body = self.channel.basic_get(queue, auto_ack=True)
            if method is None:
                return bodies
            bodies.append(body)


class Tutorials(Suite):
    def test_hello_world(self):
        queue = self.queue("hello")
        self.channel.basic_publish("", queue, b"Hello World!")
        [(method, properties, body)] = self.take(queue, 1, auto_ack=True)
        self.assertEqual((body, method.exchange, method.routing_key), (b"Hello World!", "", queue))
        self.assertIsNone(properties.content_type)

    def test_work_queue_shares_the_tasks(self):
        queue = self.queue("tasks", durable=True)
        persistent = pika.BasicProperties(delivery_mode=2)
        workers = []
        for number in range(2):
            channel = self.connection.channel()
            channel.basic_qos(prefetch_count=1)
            done = []
            channel.basic_consume(queue, lambda ch, m, p, body, done=done: (done.append(body), ch.basic_ack(m.delivery_tag)))
            workers.append(done)
        for number in range(10):
            self.channel.basic_publish("", queue, str(number).encode(), persistent)
        self.wait_until(lambda: sum(map(len, workers)) == 10)
        self.assertEqual(sorted(workers[0] + workers[1]), sorted(str(n).encode() for n in range(10)))
        self.assertTrue(all(workers), "both workers get tasks")

    def wait_until(self, condition):
        deadline = time.monotonic() + DEADLINE
        while not condition():
            self.assertLess(time.monotonic(), deadline, "the condition does not come true")
            self.connection.process_data_events(time_limit=0.1)

    def test_publish_subscribe(self):
        exchange = self.exchange("fanout", "logs")
        queues = [self.channel.queue_declare("", exclusive=True).method.queue for _ in range(3)]
        for queue in queues:
            self.assertTrue(queue.startswith("amq.gen-"))
            self.channel.queue_bind(queue, exchange)
        self.channel.basic_publish(exchange, "", b"news")
        for queue in queues:
            self.assertEqual(self.bodies(queue), [b"news"])

    def test_routing(self):
        exchange = self.exchange("direct", "direct_logs")
        errors, everything = self.queue("errors"), self.queue("everything")
        self.channel.queue_bind(errors, exchange, "error")
        for severity in ("info", "warning", "error"):
            self.channel.queue_bind(everything, exchange, severity)
            self.channel.basic_publish(exchange, severity, severity.encode())
        self.channel.basic_publish(exchange, "error", b"again")
        self.assertEqual(self.bodies(errors), [b"error", b"again"])
        self.assertEqual(self.bodies(everything), [b"info", b"warning", b"error", b"again"])

    def test_topics(self):
        exchange = self.exchange("topic", "topic_logs")
        orange, rabbits, all_of_it = self.queue("orange"), self.queue("rabbits"), self.queue("all")
        self.channel.queue_bind(orange, exchange, "*.orange.*")
        self.channel.queue_bind(rabbits, exchange, "*.*.rabbit")
        self.channel.queue_bind(rabbits, exchange, "lazy.#")
        self.channel.queue_bind(all_of_it, exchange, "#")
        keys = [
            "quick.orange.rabbit",
            "lazy.orange.elephant",
            "quick.orange.fox",
            "lazy.brown.fox",
            "lazy.pink.rabbit",
            "quick.brown.fox",
            "orange",
            "quick.orange.new.rabbit",
            "lazy.orange.new.rabbit",
            "lazy",
        ]
        for key in keys:
            self.channel.basic_publish(exchange, key, key.encode())
        pick = lambda *numbers: [keys[n].encode() for n in numbers]
        self.assertEqual(self.bodies(orange), pick(0, 1, 2))
        self.assertEqual(self.bodies(rabbits), pick(0, 1, 3, 4, 8, 9))
        self.assertEqual(self.bodies(all_of_it), pick(*range(10)))

    def test_rpc(self):
        requests = self.queue("rpc")

        def serve():
            with pika.BlockingConnection(parameters()) as connection:
                channel = connection.channel()
                channel.basic_qos(prefetch_count=1)
                for method, properties, body in channel.consume(requests, inactivity_timeout=DEADLINE):
                    if method is None:
                        return
                    answer = pika.BasicProperties(correlation_id=properties.correlation_id)
                    channel.basic_publish("", properties.reply_to, str(int(body) ** 2).encode(), answer)
                    channel.basic_ack(method.delivery_tag)
                    if body == b"0":
                        return

        server = threading.Thread(target=serve)
        server.start()
        self.addCleanup(server.join, DEADLINE)
        replies = self.channel.queue_declare("", exclusive=True).method.queue
        for number in (3, 12, 0):
            properties = pika.BasicProperties(reply_to=replies, correlation_id=str(number))
            self.channel.basic_publish("", requests, str(number).encode(), properties)
        for (_, properties, body), number in zip(self.take(replies, 3, auto_ack=True), (3, 12, 0)):
            self.assertEqual((properties.correlation_id, int(body)), (str(number), number**2))


class Acknowledgements(Suite):
    WORKER = """
import sys, pika
connection = pika.BlockingConnection(pika.ConnectionParameters(sys.argv[1], int(sys.argv[2])))
channel = connection.channel()
channel.basic_qos(prefetch_count=3)
for method, properties, body in channel.consume(sys.argv[3]):
    print(body.decode(), flush=True)
"""

    def test_messages_of_a_killed_consumer_go_to_the_next(self):
        queue = self.queue()
        for number in range(5):
            self.channel.basic_publish("", queue, str(number).encode())
        worker = subprocess.Popen(
            [sys.executable, "-c", self.WORKER, HOST, str(PORT), queue], stdout=subprocess.PIPE, text=True
        )
        self.addCleanup(worker.stdout.close)
        taken = [worker.stdout.readline().strip() for _ in range(3)]
        self.assertEqual(taken, ["0", "1", "2"])
        worker.send_signal(signal.SIGKILL)
        worker.wait(DEADLINE)
        deliveries = self.take(queue, 5)
        by_body = {body: method.redelivered for method, _, body in deliveries}
        self.assertEqual(by_body, {b"0": True, b"1": True, b"2": True, b"3": False, b"4": False})

    def test_fair_dispatch_with_prefetch_one(self):
        queue = self.queue()
        busy, free = self.connection.channel(), self.connect().channel()
        busy.basic_qos(prefetch_count=1)
        free.basic_qos(prefetch_count=1)
        held = []
        busy.basic_consume(queue, lambda ch, m, p, body: held.append(body))
        self.channel.basic_publish("", queue, b"heavy")
        deadline = time.monotonic() + DEADLINE
        while not held and time.monotonic() < deadline:
            self.connection.process_data_events(time_limit=0.1)
        for number in range(5):
            self.channel.basic_publish("", queue, str(number).encode())
        done = []
        for method, _, body in free.consume(queue, inactivity_timeout=DEADLINE):
            self.assertIsNotNone(method, "the free consumer gets what the busy one cannot take")
            done.append(body)
            free.basic_ack(method.delivery_tag)
            if len(done) == 5:
                break
        self.assertEqual(held, [b"heavy"])
        self.assertEqual(done, [str(n).encode() for n in range(5)])

    def test_reject_with_and_without_requeue(self):
        queue = self.queue()
        self.channel.basic_publish("", queue, b"x")
        method, _, _ = self.channel.basic_get(queue)
        self.channel.basic_reject(method.delivery_tag, requeue=True)
        method, _, _ = self.channel.basic_get(queue)
        self.assertTrue(method.redelivered)
        self.channel.basic_nack(method.delivery_tag, requeue=False)
        self.assertEqual(self.bodies(queue), [])

    def test_unknown_delivery_tag_closes_the_channel(self):
        self.channel.basic_ack(99)
        with self.assertRaises(pika.exceptions.ChannelClosedByBroker) as raised:
            self.channel.queue_declare("", exclusive=True)
        self.assertEqual(raised.exception.reply_code, 406)
        self.assertEqual(raised.exception.reply_text, "PRECONDITION_FAILED - unknown delivery tag 99")
        self.assertTrue(self.connection.is_open)


class Publishing(Suite):
    def test_confirms(self):
        queue = self.queue(durable=True)
        self.channel.confirm_delivery()
        for number in range(100):
            self.channel.basic_publish("", queue, str(number).encode(), pika.BasicProperties(delivery_mode=2))
        self.assertEqual(self.channel.queue_declare(queue, passive=True).method.message_count, 100)

    def test_mandatory_message_comes_back(self):
        self.channel.confirm_delivery()
        with self.assertRaises(pika.exceptions.UnroutableError) as raised:
            self.channel.basic_publish("", self.name("nowhere"), b"lost", mandatory=True)
        [message] = raised.exception.messages
        self.assertEqual((message.method.reply_code, message.method.reply_text), (312, "NO_ROUTE"))
        self.assertEqual(message.body, b"lost")

    def test_headers_exchange(self):
        exchange = self.exchange("headers")
        everything, something = self.queue("all"), self.queue("any")
        self.channel.queue_bind(everything, exchange, "", {"x-match": "all", "format": "pdf", "pages": 2})
        self.channel.queue_bind(something, exchange, "", {"x-match": "any", "format": "pdf", "pages": 2})
        for headers in ({"format": "pdf", "pages": 2}, {"format": "pdf", "pages": 3}, {"format": "txt"}):
            properties = pika.BasicProperties(headers=headers)
            self.channel.basic_publish(exchange, "", str(len(headers)).encode() + headers["format"].encode(), properties)
        self.assertEqual(self.bodies(everything), [b"2pdf"])
        self.assertEqual(self.bodies(something), [b"2pdf", b"2pdf"])

    def test_properties_come_back(self):
        queue = self.queue()
        sent = pika.BasicProperties(
            content_type="text/plain",
            content_encoding="utf-8",
            headers={"int": 1, "big": 2**40, "text": "t", "list": [1, "two", {"three": 3}], "none": None, "yes": True},
            delivery_mode=2,
            priority=3,
            correlation_id="c",
            reply_to="r",
            expiration="60000",
            message_id="m",
            timestamp=1700000000,
            type="t",
            user_id="guest",
            app_id="a",
        )
        self.channel.basic_publish("", queue, b"x", sent)
        _, received, _ = self.channel.basic_get(queue, auto_ack=True)
        self.assertEqual(received, sent)

    def test_large_message(self):
        queue = self.queue()
        body = os.urandom(1024) * (10 * 1024)
        self.channel.confirm_delivery()
        self.channel.basic_publish("", queue, body)
        [(_, _, received)] = self.take(queue, 1, auto_ack=True)
        self.assertEqual(len(received), 10 * 1024 * 1024)
        self.assertEqual(received, body)

    def test_exchange_to_exchange(self):
        source, target = self.exchange("topic", "source"), self.exchange("fanout", "target")
        queue = self.queue()
        self.channel.exchange_bind(target, source, "a.#")
        self.channel.queue_bind(queue, target)
        self.channel.basic_publish(source, "a.b", b"yes")
        self.channel.basic_publish(source, "b.a", b"no")
        self.assertEqual(self.bodies(queue), [b"yes"])


class Connections(Suite):
    def test_thousand_channels_on_one_connection(self):
        connection = self.connect()
        channels = [connection.channel() for _ in range(1000)]
        queue = self.queue()
        for number in (0, 499, 999):
            channels[number].basic_publish("", queue, str(number).encode())
            channels[number].queue_declare(queue, passive=True)
        self.assertEqual(self.bodies(queue), [b"0", b"499", b"999"])

    def test_heartbeats_keep_an_idle_connection(self):
        connection = self.connect(heartbeat=1)
        channel = connection.channel()
        connection.process_data_events(time_limit=4)
        self.assertTrue(channel.queue_declare("", exclusive=True).method.queue)

    def test_silent_client_is_cut(self):
        # The blocking connection sends heartbeats only while it is asked to; nobody asks here.
        peer = pika.BlockingConnection(parameters(heartbeat=1))._impl._transport._sock
        peer.setblocking(True)
        peer.settimeout(DEADLINE)
        try:
            while peer.recv(4096):
                pass
        except ConnectionError:
            pass

    def test_wrong_password(self):
        with self.assertRaises(pika.exceptions.ProbableAuthenticationError) as raised:
            pika.BlockingConnection(parameters(password="wrong"))
        self.assertIn("ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN", str(raised.exception))

    def test_unknown_vhost(self):
        with self.assertRaises(pika.exceptions.ProbableAccessDeniedError) as raised:
            pika.BlockingConnection(parameters(virtual_host="nowhere"))
        self.assertIn("(530) 'NOT_ALLOWED - vhost nowhere not found'", str(raised.exception))

    def test_vhost_without_permission(self):
        with self.assertRaises(pika.exceptions.ProbableAccessDeniedError) as raised:
            pika.BlockingConnection(parameters("limited", "secret", virtual_host="closed"))
        self.assertIn("NOT_ALLOWED - access to vhost 'closed' refused for user 'limited'", str(raised.exception))

    def test_permissions(self):
        with pika.BlockingConnection(parameters("limited", "secret")) as connection:
            mine = "mine." + self.prefix
            connection.channel().queue_declare(mine, auto_delete=True)
            connection.channel().basic_publish("", mine, b"x")
            connection.channel().queue_delete(mine)
            for refused in (
                lambda channel: channel.queue_declare("yours." + self.prefix),
                lambda channel: channel.exchange_declare("yours." + self.prefix),
                lambda channel: (channel.basic_publish("amq.topic", "k", b"x"), channel.queue_declare(mine, passive=True)),
            ):
                with self.assertRaises(pika.exceptions.ChannelClosedByBroker) as raised:
                    refused(connection.channel())
                self.assertEqual(raised.exception.reply_code, 403)
                self.assertIn("refused for user 'limited'", raised.exception.reply_text)

    def test_exclusive_queue_is_locked_and_goes_with_its_connection(self):
        owner = self.connect()
        queue = owner.channel().queue_declare(self.name("mine"), exclusive=True).method.queue
        with self.assertRaises(pika.exceptions.ChannelClosedByBroker) as raised:
            self.channel.queue_declare(queue, passive=True)
        self.assertEqual(raised.exception.reply_code, 405)
        owner.close()
        with self.assertRaises(pika.exceptions.ChannelClosedByBroker) as raised:
            self.connection.channel().queue_declare(queue, passive=True)
        self.assertEqual(raised.exception.reply_code, 404)

    def test_deleted_queue_cancels_its_consumer(self):
        queue = self.queue()
        cancelled = []
        self.channel.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
        tag = self.channel.basic_consume(queue, lambda *_: None)
        self.connection.channel().queue_delete(queue)
        self.connection.process_data_events(time_limit=1)
        self.assertEqual(cancelled, [tag])


# A RabbitMQ has no Lua hooks.
if IS_OURS:

    class Hooks(Suite):
        def test_tenant_is_put_in_front_of_the_routing_key(self):
            acme, globex = self.queue("acme"), self.queue("globex")
            tenant = self.prefix.replace(".", "-")
            self.channel.queue_bind(acme, "tenants", f"{tenant}-acme.#")
            self.channel.queue_bind(globex, "tenants", f"{tenant}-globex.#")
            for name in ("acme", "globex"):
                properties = pika.BasicProperties(headers={"x-tenant": f"{tenant}-{name}"})
                self.channel.basic_publish("tenants", "order.created", name.encode(), properties)
            [(method, _, body)] = self.take(acme, 1, auto_ack=True)
            self.assertEqual((method.routing_key, body), (f"{tenant}-acme.order.created", b"acme"))
            self.assertEqual(self.bodies(globex), [b"globex"])


if __name__ == "__main__":
    unittest.main()
