// BullMQ: https://docs.bullmq.io. A job's lock is renewed; when it has expired, the job is stalled and is moved back, `maxStalledCount` times.

import { Queue, Worker } from 'bullmq'

import { LEASE, PORT, main, work } from './producer.mjs'

let queue

await main({
  async work () {
    const worker = new Worker('chaos', job => work(job.data), {
      connection: { host: '127.0.0.1', port: PORT, maxRetriesPerRequest: null },
      concurrency: 8,
      lockDuration: LEASE,
      stalledInterval: 1_000,
      maxStalledCount: 5
    })
    worker.on('error', error => console.error(String(error)))
  },
  async open () {
    // As the documentation has it for producers: a call fails rather than waits for the server.
    queue = new Queue('chaos', { connection: { host: '127.0.0.1', port: PORT, enableOfflineQueue: false } })
    queue.on('error', error => console.error(String(error)))
    await queue.waitUntilReady()
  },
  async enqueue (id, number) {
    await queue.add('handle', [id, number], { jobId: id })
  },
  async outcome (id) {
    const job = await queue.getJob(id)
    if (!job) return null
    if (await job.isCompleted()) return ['completed', job.returnvalue]
    return await job.isFailed() ? ['failed', job.failedReason] : null
  }
})
