// @platformatic/job-queue: https://github.com/platformatic/job-queue.
// BENCH_DIRECTORY chooses its file store instead of Redis.

import { FileStorage, Queue, RedisStorage } from '@platformatic/job-queue'

import { main, PAYLOAD } from './harness.mjs'

const directory = process.env.BENCH_DIRECTORY
let queue

function make (port, concurrency) {
  const storage = directory
    ? new FileStorage({ basePath: directory })
    : new RedisStorage({ url: `redis://127.0.0.1:${port}` })
  return new Queue({ storage, concurrency })
}

await main({
  async open (port) {
    if (queue) return
    queue = make(port, 1)
    await queue.start()
  },
  async enqueue (number) {
    await queue.enqueue(`job-${number}`, PAYLOAD)
  },
  async request (number) {
    await queue.enqueueAndWait(`request-${number}`, PAYLOAD)
  },
  async work (port, concurrency, done) {
    queue = make(port, concurrency)
    queue.execute(async () => {
      done()
      return true
    })
    await queue.start()
  },
  async close () {
    await queue.stop()
  }
})
