// @platformatic/job-queue: https://github.com/platformatic/job-queue. Each worker process has a Reaper, one of which is elected.

import { Queue, Reaper, RedisStorage } from '@platformatic/job-queue'

import { LEASE, PORT, main, work } from './producer.mjs'

const storage = new RedisStorage({ url: `redis://127.0.0.1:${PORT}` })
const queue = new Queue({ storage, concurrency: 8, visibilityTimeout: LEASE })
queue.on('error', error => console.error(String(error)))

await main({
  async work () {
    queue.execute(job => work(job.payload))
    await queue.start()
    const reaper = new Reaper({
      storage,
      visibilityTimeout: LEASE,
      leaderElection: { enabled: true, lockTTL: LEASE, renewalInterval: 1_000, acquireRetryInterval: 1_000 }
    })
    reaper.on('error', error => console.error(String(error)))
    await reaper.start()
  },
  async open () {
    await queue.start()
  },
  async enqueue (id, number) {
    await queue.enqueue(id, [id, number])
  },
  async outcome (id) {
    const status = await queue.getStatus(id)
    if (status?.state === 'completed') return ['completed', await queue.getResult(id)]
    return status?.state === 'failed' ? ['failed', status.error?.message] : null
  }
})
