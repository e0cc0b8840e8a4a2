// BullMQ: https://docs.bullmq.io. Its request/response is Job.waitUntilFinished with a QueueEvents.

import { Queue, QueueEvents, Worker } from 'bullmq'

import { main, PAYLOAD } from './harness.mjs'

const opened = []
let queue, events

async function connected (made) {
  opened.push(made)
  await made.waitUntilReady()
  return made
}

await main({
  async open (port) {
    const connection = { host: '127.0.0.1', port }
    queue = await connected(new Queue('bench', { connection }))
    events = await connected(new QueueEvents('bench', { connection }))
  },
  async enqueue () {
    await queue.add('noop', PAYLOAD)
  },
  async request () {
    const job = await queue.add('noop', PAYLOAD)
    await job.waitUntilFinished(events)
  },
  async work (port, concurrency, done) {
    const connection = { host: '127.0.0.1', port }
    await connected(new Worker('bench', async () => {
      done()
      return true
    }, { connection, concurrency }))
  },
  async close () {
    for (const each of opened.reverse()) await each.close()
  }
})
