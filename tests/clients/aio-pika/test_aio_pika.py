"""The broker as aio-pika's users meet it: many coroutines on one connection, patterns, and connections that mend themselves.

Run by `tests/run`, or by hand: AMQP_HOST=127.0.0.1 AMQP_PORT=5672 python -m unittest discover tests/clients/aio-pika
"""

import asyncio
import logging
import os
import unittest
import uuid

import aio_pika
import aio_pika.exceptions
from aio_pika import DeliveryMode, Message
from aio_pika.patterns import RPC, Master, RejectMessage

HOST = os.environ.get("AMQP_HOST", "127.0.0.1")
PORT = int(os.environ.get("AMQP_PORT", "5672"))
DEADLINE = 20

# It warns of everything that these tests do to its connections.
logging.disable(logging.CRITICAL)


class Wire:
    """A way to the broker that can be cut."""

    async def __aenter__(self):
        self.sockets = set()
        self.server = await asyncio.start_server(self.carry, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()
        self.cut()

    async def carry(self, reader, writer):
        try:
            away, back = await asyncio.open_connection(HOST, PORT)
        except OSError:
            writer.transport.abort()
            return
        self.sockets |= {writer.transport, back.transport}
        await asyncio.gather(self.copy(reader, back), self.copy(away, writer))

    async def copy(self, source, sink):
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        sink.transport.abort()

    def cut(self):
        for transport in self.sockets:
            transport.abort()
        self.sockets.clear()


class Suite(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.prefix = "aio-pika." + uuid.uuid4().hex[:12]
        self.connection = await self.connect()
        self.channel = await self.connection.channel()
        # For looking: robust channels answer passive declares from memory.
        control = await aio_pika.connect(host=HOST, port=PORT, login="guest", password="guest", timeout=DEADLINE)
        self.addAsyncCleanup(control.close)
        self.control = await control.channel()

    async def connect(self, port=PORT):
        connection = await aio_pika.connect_robust(
            host=HOST, port=port, login="guest", password="guest", reconnect_interval=0.05, timeout=DEADLINE
        )
        self.addAsyncCleanup(connection.close)
        return connection

    def name(self, part):
        return f"{self.prefix}.{part}"

    async def queue(self, part="q", **more):
        """A queue that goes with its last consumer or with the test."""
        queue = await self.channel.declare_queue(self.name(part), **more)
        self.addAsyncCleanup(self.control.queue_delete, queue.name)
        return queue

    async def publish(self, queue, *bodies, channel=None, **more):
        exchange = (channel or self.channel).default_exchange
        await asyncio.gather(*(exchange.publish(Message(body, **more), queue.name) for body in bodies))

    async def soon(self, condition):
        async with asyncio.timeout(DEADLINE):
            while not await condition():
                await asyncio.sleep(0.01)

    async def state(self, queue):
        """How many messages are ready in a queue, and how many consumers it has."""
        declared = (await self.control.declare_queue(queue.name, passive=True)).declaration_result
        return declared.message_count, declared.consumer_count

    async def ready(self, queue):
        return (await self.state(queue))[0]


class Publishing(Suite):
    async def test_a_thousand_publishes_at_once_are_each_confirmed(self):
        queue = await self.queue()
        bodies = [str(number).encode() for number in range(1000)]
        await self.publish(queue, *bodies, delivery_mode=DeliveryMode.PERSISTENT)
        self.assertEqual(await self.ready(queue), 1000)

    async def test_mandatory_message_without_queue_comes_back_as_an_exception(self):
        channel = await self.connection.channel(on_return_raises=True)
        with self.assertRaises(aio_pika.exceptions.DeliveryError) as caught:
            await channel.default_exchange.publish(Message(b"lost"), self.name("nowhere"), mandatory=True)
        self.assertEqual(caught.exception.message.body, b"lost")
        self.assertEqual(caught.exception.message.delivery.reply_text, "NO_ROUTE")

    async def test_properties_arrive_as_they_were_sent(self):
        queue = await self.queue()
        properties = {
            "headers": {"text": "ü", "number": 2**40, "list": [1, "two", None], "table": {"deep": {"er": True}}},
            "content_type": "text/plain",
            "content_encoding": "utf-8",
            "priority": 3,
            "correlation_id": "c",
            "reply_to": "r",
            "message_id": "m",
            "type": "t",
            "user_id": "guest",
            "app_id": "a",
        }
        await self.publish(queue, b"body", **properties)
        got = await queue.get(timeout=DEADLINE)
        self.assertEqual({key: getattr(got, key) for key in properties}, properties)
        await got.ack()

    async def test_transaction_is_seen_after_its_commit_and_not_after_its_rollback(self):
        queue = await self.queue()
        channel = await self.connection.channel(publisher_confirms=False)
        async with channel.transaction():
            await self.publish(queue, b"one", b"two", channel=channel)
            self.assertEqual(await self.ready(queue), 0)
        self.assertEqual(await self.ready(queue), 2)
        with self.assertRaises(ZeroDivisionError):
            async with channel.transaction():
                await self.publish(queue, b"three", channel=channel)
                raise ZeroDivisionError
        self.assertEqual(await self.ready(queue), 2)


class Consuming(Suite):
    async def test_iterator_that_is_left_gives_back_what_it_had_fetched(self):
        queue = await self.queue()
        await self.publish(queue, *(str(number).encode() for number in range(10)))
        async with queue.iterator() as messages:
            async for message in messages:
                await message.ack()
                break
        await self.soon(lambda: self.has(queue, 9))
        again = await queue.get(timeout=DEADLINE)
        self.assertEqual((again.body, again.redelivered), (b"1", True))
        await again.ack()

    async def has(self, queue, count):
        return await self.ready(queue) == count

    async def test_failed_processing_rejects_and_requeue_brings_it_again(self):
        queue = await self.queue()
        await self.publish(queue, b"task")
        with self.assertRaises(ZeroDivisionError):
            async with (await queue.get(timeout=DEADLINE)).process(requeue=True):
                raise ZeroDivisionError
        again = await queue.get(timeout=DEADLINE)
        self.assertTrue(again.redelivered)
        with self.assertRaises(ZeroDivisionError):
            async with again.process():
                raise ZeroDivisionError
        self.assertEqual(await self.ready(queue), 0)

    async def test_consumers_that_come_and_go_lose_nothing(self):
        queue = await self.queue()
        bodies = {str(number).encode() for number in range(300)}
        seen = set()

        async def take(message):
            seen.add(message.body)
            await asyncio.sleep(0)
            await message.ack()

        publishing = asyncio.create_task(self.publish(queue, *bodies))
        async with asyncio.timeout(DEADLINE):
            while seen != bodies:
                channel = await self.connection.channel()
                await channel.set_qos(prefetch_count=5)
                tag = await (await channel.get_queue(queue.name)).consume(take)
                await asyncio.sleep(0.005)
                await (await channel.get_queue(queue.name)).cancel(tag)
                # What was not acked goes back with the channel.
                await channel.close()
        await publishing

    async def test_error_closes_the_channel_alone(self):
        other = await self.connection.channel()
        with self.assertRaises(aio_pika.exceptions.ChannelNotFoundEntity):
            await other.get_queue(self.name("nowhere"), ensure=True)
        queue = await self.queue()
        await self.publish(queue, b"still here")
        self.assertEqual(await self.ready(queue), 1)


class Patterns(Suite):
    async def test_remote_calls_return_results_and_exceptions(self):
        rpc = await RPC.create(self.channel)

        async def divide(*, a, b):
            return a / b

        name = self.name("divide")
        await rpc.register(name, divide, auto_delete=True)
        other = await RPC.create(await self.connection.channel())
        answers = await asyncio.gather(*(other.call(name, {"a": number, "b": 2}) for number in range(50)))
        self.assertEqual(answers, [number / 2 for number in range(50)])
        with self.assertRaises(ZeroDivisionError):
            await other.call(name, {"a": 1, "b": 0})
        with self.assertRaises(aio_pika.exceptions.MessageProcessError):
            await other.call(self.name("nobody"), {})
        await rpc.unregister(divide)
        await rpc.close()
        await other.close()

    async def test_master_hands_tasks_to_workers(self):
        await self.channel.set_qos(prefetch_count=1)
        master = Master(self.channel)
        done = []

        async def work(*, task):
            if task == "impossible":
                raise RejectMessage(requeue=False)
            done.append(task)

        worker = await master.create_worker(self.name("work"), work, auto_delete=True)
        for task in ("first", "impossible", "second"):
            await master.create_task(self.name("work"), {"task": task})
        await self.soon(lambda: self.is_done(done, ["first", "second"]))
        await worker.close()

    async def is_done(self, done, wanted):
        return done == wanted


class Reconnecting(Suite):
    async def test_everything_is_there_again_after_the_connection_is_lost(self):
        async with Wire() as wire:
            connection = await self.connect(wire.port)
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=10)
            exchange = await channel.declare_exchange(self.name("x"), "topic", auto_delete=True)
            queue = await channel.declare_queue(self.name("private"), exclusive=True)
            await queue.bind(exchange, "news.#")
            heard = []

            async def hear(message):
                await message.ack()
                heard.append(message.body)

            await queue.consume(hear)
            for round in range(3):
                if round:
                    wire.cut()
                await self.soon(lambda: self.is_through(exchange, heard, str(round).encode()))
            await connection.close()

    async def is_through(self, exchange, heard, body):
        """Publishes until it is heard: what was under way when the wire was cut may be lost."""
        try:
            async with asyncio.timeout(1):
                await exchange.publish(Message(body), "news.today", mandatory=True)
        except (OSError, RuntimeError, TimeoutError, asyncio.CancelledError, aio_pika.exceptions.AMQPError):
            return False
        return body in heard

    async def test_unacked_messages_come_again_after_the_connection_is_lost(self):
        queue = await self.queue(durable=True)
        await self.publish(queue, b"one", b"two", delivery_mode=DeliveryMode.PERSISTENT)
        async with Wire() as wire:
            connection = await self.connect(wire.port)
            channel = await connection.channel()
            deliveries = asyncio.Queue()
            mirror = await channel.get_queue(queue.name)
            await mirror.consume(deliveries.put)
            async with asyncio.timeout(DEADLINE):
                first = [await deliveries.get(), await deliveries.get()]
                self.assertEqual([(m.body, m.redelivered) for m in first], [(b"one", False), (b"two", False)])
                wire.cut()
                again = [await deliveries.get(), await deliveries.get()]
            self.assertEqual([(m.body, m.redelivered) for m in again], [(b"one", True), (b"two", True)])
            for message in again:
                await message.ack()
            await connection.close()
        await self.soon(lambda: self.is_free(queue))

    async def is_free(self, queue):
        return await self.state(queue) == (0, 0)


if __name__ == "__main__":
    unittest.main()
