// What a Node peer's runner does; see harness.py, which does the same.

import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'

export const PAYLOAD = { data: 'x'.repeat(89) }
const SLOTS = 100

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()

async function ready () {
  console.log('ready')
  await lines.next()
}

function together (count, caller) {
  return Promise.all(Array.from({ length: count }, caller))
}

async function enqueue (peer, { port, warmup, jobs, in_flight: inFlight }) {
  let number = 0
  const caller = share => async () => {
    for (let i = 0; i < share; i++) await peer.enqueue(number++)
  }
  await peer.open(port)
  await together(inFlight, caller(warmup / inFlight))
  await ready()
  const started = performance.now()
  await together(inFlight, caller(jobs / inFlight))
  return { rate: jobs / (performance.now() - started) * 1e3 }
}

async function drain (peer, { port, warmup, jobs, concurrency }) {
  let left = warmup + jobs
  let started
  await peer.fill?.(left)
  await ready()
  const rate = await new Promise((resolve, reject) => {
    const done = () => {
      if (--left === jobs) started = performance.now()
      else if (left === 0) resolve(jobs / (performance.now() - started) * 1e3)
    }
    peer.work(port, concurrency, done).catch(reject)
  })
  await sleep(300) // what ended last is stored meanwhile, and counts for the server
  return { rate }
}

// Its tables are made by the first that connects.
async function install (peer, { port }) {
  await ready()
  await peer.open(port)
  return {}
}

async function serve (peer, { port }) {
  await peer.work(port, SLOTS, () => {})
  await ready()
  return {}
}

async function request (peer, { port, warmup, seconds, in_flight: inFlight, served }) {
  let number = 0
  let latencies, lost
  const run = async seconds => {
    latencies = []
    lost = 0
    const started = performance.now()
    await together(inFlight, async () => {
      for (let begun; (begun = performance.now()) < started + seconds * 1e3;) {
        const answered = await peer.request(number++)
        latencies.push(performance.now() - begun)
        if (answered === false) lost++
      }
    })
    return latencies.length / (performance.now() - started) * 1e3
  }
  if (!served) await peer.work(port, SLOTS, () => {})
  await peer.open(port)
  await run(warmup)
  await ready()
  const rate = await run(seconds)
  latencies.sort((a, b) => a - b)
  const calls = latencies.length
  const at = share => latencies[Math.min(calls - 1, Math.floor(calls * share))] / 1e3
  const longest = latencies[calls - 1] / 1e3
  return { rate, calls, lost, p50: at(0.5), p99: at(0.99), p999: at(0.999), longest }
}

export async function main (peer) {
  const { action, ...options } = JSON.parse(process.argv[2])
  const longest = setTimeout(() => {
    console.error('the measurement takes too long')
    process.exit(1)
  }, 300_000)
  console.log(JSON.stringify(await { install, enqueue, drain, serve, request }[action](peer, options)))
  await Promise.race([peer.close(), sleep(500)]) // some wait for the end of a blocking command
  clearTimeout(longest)
  process.exit(0)
}
