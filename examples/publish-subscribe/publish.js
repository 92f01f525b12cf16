// Tells everybody: node publish.js MESSAGE...
'use strict'

const connect = require('./connect')

async function main () {
  const connection = await connect()
  const channel = await connection.createConfirmChannel()
  for (const text of process.argv.slice(2)) channel.publish('news', '', Buffer.from(text))
  await channel.waitForConfirms()
  await connection.close()
}

main()
