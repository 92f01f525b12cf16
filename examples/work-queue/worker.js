// Works on tasks one at a time: node worker.js [NUMBER OF TASKS]
'use strict'

const { setTimeout } = require('node:timers/promises')
const connect = require('./connect')

async function main () {
  const limit = process.argv[2] ? Number(process.argv[2]) : Infinity
  const connection = await connect()
  const channel = await connection.createChannel()
  // One unacked task at a time: a busy worker gets nothing new while others are free.
  await channel.prefetch(1)
  let done = 0
  console.log('waiting for tasks')
  await channel.consume('tasks', async (message) => {
    // null says that the queue was deleted.
    if (message === null) return connection.close()
    const task = message.content.toString()
    console.log(`working on ${task}`)
    // Each dot takes half a second.
    await setTimeout(500 * (task.split('.').length - 1))
    // Only now is the task done; a worker that dies before this leaves it to the next one.
    channel.ack(message)
    done += 1
    if (done === limit) await connection.close()
  })
}

main()
