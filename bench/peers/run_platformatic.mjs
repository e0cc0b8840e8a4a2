// @platformatic/job-queue: https://github.com/platformatic/job-queue.
// BENCH_POSTGRES chooses its PostgreSQL store instead of Redis, BENCH_DIRECTORY its file store, or with the name
// "memory" its memory store.

import { FileStorage, MemoryStorage, PgStorage, Queue, RedisStorage } from '@platformatic/job-queue'

import { main, PAYLOAD } from './harness.mjs'

const directory = process.env.BENCH_DIRECTORY
const memory = directory === 'memory' ? new MemoryStorage() : undefined
// Of the file store's notifications, the first process that sees one deletes it: a caller in another may miss it.
const ANSWER_WITHIN = directory ? 1_000 : 30_000
let queue

function make (port, concurrency) {
  let storage = memory
  if (!storage && directory) storage = new FileStorage({ basePath: directory })
  if (!storage && process.env.BENCH_POSTGRES) storage = new PgStorage({ connectionString: process.env.BENCH_POSTGRES })
  if (!storage) storage = new RedisStorage({ url: `redis://127.0.0.1:${port}` })
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
  // What another process has enqueued for the other stores.
  async fill (jobs) {
    if (!memory) return
    const producer = make(0, 1)
    await producer.start()
    for (let i = 0; i < jobs; i++) await producer.enqueue(`job-${i}`, PAYLOAD)
  },
  async request (number) {
    // Several processes, one after the other, ask the same store.
    const call = queue.enqueueAndWait(`request-${process.pid}-${number}`, PAYLOAD, { timeout: ANSWER_WITHIN })
    return call.then(() => true, error => {
      if (error.code !== 'TIMEOUT') throw error
      return false
    })
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
