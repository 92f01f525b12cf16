// The broker as amqplib's users meet it: the tutorials, acks, confirms, returns, limits and refusals.
//
// Run by `tests/run`, or by hand: AMQP_HOST=127.0.0.1 AMQP_PORT=5672 node --test tests/clients/amqplib

'use strict'

const assert = require('node:assert/strict')
const { once } = require('node:events')
const { randomBytes } = require('node:crypto')
const { afterEach, beforeEach, describe, test } = require('node:test')
const amqp = require('amqplib')

const host = process.env.AMQP_HOST ?? '127.0.0.1'
const port = Number(process.env.AMQP_PORT ?? 5672)
const isOurs = (process.env.AMQP_TARGET ?? 'broker') === 'broker'

function connect (options = {}) {
  return amqp.connect({ protocol: 'amqp', hostname: host, port, username: 'guest', password: 'guest', vhost: '/', ...options })
}

let connection
let channel
let prefix

beforeEach(async () => {
  connection = await connect()
  connection.on('error', () => {})
  channel = await connection.createChannel()
  prefix = 'amqplib.' + randomBytes(6).toString('hex')
})

afterEach(async () => {
  await connection.close().catch(() => {})
})

// Queues of these tests are exclusive where it does not matter, so that nothing stays behind.
async function queue (part = 'q', options = { exclusive: true }) {
  return (await channel.assertQueue(`${prefix}.${part}`, options)).queue
}

async function exchange (type, part = 'x') {
  return (await channel.assertExchange(`${prefix}.${part}`, type, { autoDelete: true, durable: false })).exchange
}

// The next `count` messages of a queue.
function take (from, count, ch = channel, options = {}) {
  return new Promise((resolve, reject) => {
    const taken = []
    ch.consume(from, (message) => {
      taken.push(message)
      if (taken.length === count) resolve(taken)
    }, options).catch(reject)
  })
}

async function bodies (from) {
  const all = []
  for (;;) {
    const message = await channel.get(from, { noAck: true })
    if (!message) return all
    all.push(message.content.toString())
  }
}

// The error that closes a channel.
async function closingError (ch, provoke) {
  const closed = once(ch, 'error')
  provoke()
  const [error] = await closed
  return error
}

describe('tutorials', () => {
  test('hello world', async () => {
    const q = await queue('hello')
    channel.sendToQueue(q, Buffer.from('Hello World!'))
    const [message] = await take(q, 1, channel, { noAck: true })
    assert.equal(message.content.toString(), 'Hello World!')
    assert.equal(message.fields.routingKey, q)
  })

  test('work queue shares the tasks', async () => {
    const q = await queue('tasks')
    const done = [[], []]
    await new Promise((resolve, reject) => {
      (async () => {
        for (const worker of done) {
          const ch = await connection.createChannel()
          await ch.prefetch(1)
          await ch.consume(q, (message) => {
            worker.push(message.content.toString())
            ch.ack(message)
            if (done[0].length + done[1].length === 10) resolve()
          })
        }
        for (let n = 0; n < 10; n++) channel.sendToQueue(q, Buffer.from(String(n)), { persistent: true })
      })().catch(reject)
    })
    assert.deepEqual([...done[0], ...done[1]].sort(), [...'0123456789'])
    assert.ok(done[0].length > 0 && done[1].length > 0, 'both workers get tasks')
  })

  test('publish and subscribe', async () => {
    const logs = await exchange('fanout')
    const queues = []
    for (let n = 0; n < 3; n++) {
      const { queue: q } = await channel.assertQueue('', { exclusive: true })
      await channel.bindQueue(q, logs, '')
      queues.push(q)
    }
    channel.publish(logs, '', Buffer.from('news'))
    for (const q of queues) assert.deepEqual(await bodies(q), ['news'])
  })

  test('routing', async () => {
    const logs = await exchange('direct')
    const [errors, everything] = [await queue('errors'), await queue('everything')]
    await channel.bindQueue(errors, logs, 'error')
    for (const severity of ['info', 'warning', 'error']) {
      await channel.bindQueue(everything, logs, severity)
      channel.publish(logs, severity, Buffer.from(severity))
    }
    assert.deepEqual(await bodies(errors), ['error'])
    assert.deepEqual(await bodies(everything), ['info', 'warning', 'error'])
  })

  test('topics', async () => {
    const logs = await exchange('topic')
    const [kernel, critical] = [await queue('kernel'), await queue('critical')]
    await channel.bindQueue(kernel, logs, 'kern.#')
    await channel.bindQueue(critical, logs, '*.critical')
    for (const key of ['kern', 'kern.critical', 'cron.critical', 'cron.info', 'kern.a.b']) {
      channel.publish(logs, key, Buffer.from(key))
    }
    assert.deepEqual(await bodies(kernel), ['kern', 'kern.critical', 'kern.a.b'])
    assert.deepEqual(await bodies(critical), ['kern.critical', 'cron.critical'])
  })

  test('rpc', async () => {
    const requests = await queue('rpc')
    await channel.prefetch(1)
    await channel.consume(requests, (message) => {
      const { replyTo, correlationId } = message.properties
      const n = Number(message.content.toString())
      channel.sendToQueue(replyTo, Buffer.from(String(n * n)), { correlationId })
      channel.ack(message)
    })
    const client = await connection.createChannel()
    const { queue: replies } = await client.assertQueue('', { exclusive: true })
    const answers = take(replies, 2, client, { noAck: true })
    for (const n of [7, 12]) client.sendToQueue(requests, Buffer.from(String(n)), { replyTo: replies, correlationId: String(n) })
    const answered = (await answers).map((message) => [message.properties.correlationId, message.content.toString()])
    assert.deepEqual(answered, [['7', '49'], ['12', '144']])
  })
})

describe('acknowledgements', () => {
  test('messages of a killed consumer go to the next', async () => {
    const q = await queue('q', { durable: false, autoDelete: false })
    for (let n = 0; n < 3; n++) channel.sendToQueue(q, Buffer.from(String(n)))
    const dying = await connect()
    dying.on('error', () => {})
    await take(q, 3, await dying.createChannel())
    dying.connection.stream.destroy()
    const again = await take(q, 3)
    assert.deepEqual(again.map((m) => [m.content.toString(), m.fields.redelivered]), [['0', true], ['1', true], ['2', true]])
    await channel.deleteQueue(q)
  })

  test('fair dispatch with prefetch 1', async () => {
    const q = await queue()
    const [busy, free] = [await connection.createChannel(), await connection.createChannel()]
    await busy.prefetch(1)
    await free.prefetch(1)
    const held = take(q, 1, busy)
    channel.sendToQueue(q, Buffer.from('heavy'))
    assert.equal((await held)[0].content.toString(), 'heavy')
    const done = []
    const all = new Promise((resolve) => {
      free.consume(q, (message) => {
        done.push(message.content.toString())
        free.ack(message)
        if (done.length === 5) resolve()
      })
    })
    for (let n = 0; n < 5; n++) channel.sendToQueue(q, Buffer.from(String(n)))
    await all
    assert.deepEqual(done, ['0', '1', '2', '3', '4'])
  })

  test('unknown delivery tag closes the channel', async () => {
    const error = await closingError(channel, () => channel.ack({ fields: { deliveryTag: 99 } }))
    assert.equal(error.code, 406)
    assert.match(error.message, /PRECONDITION_FAILED - unknown delivery tag 99/)
  })
})

describe('publishing', () => {
  test('confirms', async () => {
    const ch = await connection.createConfirmChannel()
    const q = await queue('q', { durable: true })
    for (let n = 0; n < 200; n++) ch.sendToQueue(q, Buffer.from(String(n)), { persistent: true })
    await ch.waitForConfirms()
    assert.equal((await channel.checkQueue(q)).messageCount, 200)
    await channel.deleteQueue(q)
  })

  test('mandatory message comes back', async () => {
    const returned = once(channel, 'return')
    channel.publish('', `${prefix}.nowhere`, Buffer.from('lost'), { mandatory: true })
    const [message] = await returned
    assert.equal(message.fields.replyCode, 312)
    assert.equal(message.fields.replyText, 'NO_ROUTE')
    assert.equal(message.content.toString(), 'lost')
  })

  test('headers exchange', async () => {
    const x = await exchange('headers')
    const [all, any] = [await queue('all'), await queue('any')]
    await channel.bindQueue(all, x, '', { 'x-match': 'all', format: 'pdf', pages: 2 })
    await channel.bindQueue(any, x, '', { 'x-match': 'any', format: 'pdf', pages: 2 })
    channel.publish(x, '', Buffer.from('both'), { headers: { format: 'pdf', pages: 2 } })
    channel.publish(x, '', Buffer.from('one'), { headers: { format: 'pdf', pages: 3 } })
    channel.publish(x, '', Buffer.from('none'), { headers: { format: 'txt' } })
    assert.deepEqual(await bodies(all), ['both'])
    assert.deepEqual(await bodies(any), ['both', 'one'])
  })

  test('large message', async () => {
    const q = await queue()
    const body = randomBytes(10 * 1024 * 1024)
    channel.sendToQueue(q, body)
    const [message] = await take(q, 1, channel, { noAck: true })
    assert.ok(body.equals(message.content))
  })
})

describe('connections', () => {
  test('server properties name the product that clients look for', () => {
    assert.equal(connection.connection.serverProperties.product, 'RabbitMQ')
  })

  test('a thousand channels on one connection', async () => {
    const channels = await Promise.all(Array.from({ length: 1000 }, () => connection.createChannel()))
    const q = await queue()
    for (const n of [0, 499, 999]) {
      channels[n].sendToQueue(q, Buffer.from(String(n)))
      await channels[n].checkQueue(q)
    }
    assert.deepEqual(await bodies(q), ['0', '499', '999'])
  })

  test('smallest frame size', async () => {
    const small = await connect({ frameMax: 4096 })
    const ch = await small.createChannel()
    const { queue: q } = await ch.assertQueue('', { exclusive: true })
    const body = randomBytes(100_000)
    ch.sendToQueue(q, body)
    const [message] = await take(q, 1, ch, { noAck: true })
    assert.ok(body.equals(message.content))
    await small.close()
  })

  test('wrong password', async () => {
    await assert.rejects(connect({ password: 'wrong' }), /ACCESS_REFUSED|403/)
  })

  test('unknown vhost', async () => {
    await assert.rejects(connect({ vhost: 'nowhere' }), /ConnectionClose/)
  })

  test('permissions', async () => {
    const limited = await connect({ username: 'limited', password: 'secret' })
    limited.on('error', () => {})
    const ch = await limited.createChannel()
    const error = await closingError(ch, () => ch.assertQueue(`${prefix}.yours`).catch(() => {}))
    assert.equal(error.code, 403)
    assert.match(error.message, /refused for user 'limited'/)
    await limited.close()
  })

  test('deleted queue cancels its consumer', async () => {
    const q = await queue('q', { durable: false, autoDelete: false })
    const cancelled = take(q, 1)
    await channel.checkQueue(q)
    await (await connection.createChannel()).deleteQueue(q)
    assert.deepEqual(await cancelled, [null])
  })
})

// A RabbitMQ has no Lua hooks.
if (isOurs) {
  test('lua hook puts the tenant in front of the routing key', async () => {
    const tenant = prefix.replace('.', '-')
    const q = await queue()
    await channel.bindQueue(q, 'tenants', `${tenant}.#`)
    channel.publish('tenants', 'order.created', Buffer.from('x'), { headers: { 'x-tenant': tenant } })
    const [message] = await take(q, 1, channel, { noAck: true })
    assert.equal(message.fields.routingKey, `${tenant}.order.created`)
  })
}
