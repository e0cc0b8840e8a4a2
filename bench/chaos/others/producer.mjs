// The job and the producer for Node libraries; see job.py and producer.py, which do the same.

import { appendFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'

export const LEASE = 5_000
export const PORT = Number(process.env.CHAOS_PORT)
const PACE = 50
const CALLERS = 10
const PATIENCE = 30_000

function note (kind, id) {
  appendFileSync(process.env.CHAOS_NOTES, JSON.stringify([kind, id, process.env.CHAOS_WORKER, Date.now() / 1e3]) + '\n')
}

export async function work ([id, number]) {
  note('start', id)
  await sleep(PACE)
  note('end', id)
  return number * number
}

function bounded (promise) {
  const late = sleep(PATIENCE, undefined, { ref: false }).then(() => { throw new Error('no answer') })
  return Promise.race([promise, late])
}

function together (caller) {
  return Promise.all(Array.from({ length: CALLERS }, caller))
}

async function enqueue (peer, first, count, rate) {
  const began = performance.now()
  const accepted = {}
  const refused = {}
  let next = 0
  await together(async () => {
    while (next < count) {
      const place = next++
      await sleep(Math.max(0, began + place / rate * 1e3 - performance.now()))
      const id = `job-${first + place}`
      try {
        await bounded(peer.enqueue(id, first + place))
        accepted[id] = Date.now() / 1e3
      } catch (error) {
        refused[id] = String(error).slice(0, 200)
      }
    }
  })
  return { accepted, refused }
}

async function ask (peer, ids) {
  const outcomes = {}
  let next = 0
  await together(async () => {
    while (next < ids.length) {
      const id = ids[next++]
      outcomes[id] = await bounded(peer.outcome(id))
    }
  })
  return outcomes
}

export async function main (peer) {
  if (process.argv[2] === 'work') return peer.work()
  await peer.open()
  for await (const line of createInterface({ input: process.stdin })) {
    const [command, ...args] = JSON.parse(line)
    console.log(JSON.stringify(await { enqueue, ask }[command](peer, ...args)))
  }
  process.exit(0)
}
