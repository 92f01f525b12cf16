// How the programs of this example reach the broker.
'use strict'

const amqp = require('amqplib')

module.exports = () => amqp.connect({
  hostname: process.env.AMQP_HOST ?? '127.0.0.1',
  port: Number(process.env.AMQP_PORT ?? 5672),
  username: 'guest',
  password: 'guest'
})
