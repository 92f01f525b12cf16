// Puts tasks into the queue: node new_task.js TASK...
'use strict'

const connect = require('./connect')

async function main () {
  const connection = await connect()
  const channel = await connection.createConfirmChannel()
  // A task that no queue takes comes back instead of being lost.
  channel.on('return', (message) => {
    console.error(`nobody takes ${message.content}`)
    process.exitCode = 1
  })
  for (const task of process.argv.slice(2)) {
    channel.sendToQueue('tasks', Buffer.from(task), { persistent: true, mandatory: true })
  }
  // The broker confirms when it has taken responsibility.
  await channel.waitForConfirms()
  await connection.close()
}

main()
