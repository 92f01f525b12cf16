// Prints what is published: node subscribe.js [NUMBER OF MESSAGES]
'use strict'

const connect = require('./connect')

async function main () {
  const limit = process.argv[2] ? Number(process.argv[2]) : Infinity
  const connection = await connect()
  const channel = await connection.createChannel()
  // A queue of this subscriber alone: the broker names it and deletes it with the connection.
  const { queue } = await channel.assertQueue('', { exclusive: true })
  await channel.bindQueue(queue, 'news', '')
  console.log('listening')
  let count = 0
  await channel.consume(queue, async (message) => {
    console.log(`heard ${message.content}`)
    count += 1
    if (count === limit) await connection.close()
  }, { noAck: true })
}

main()
