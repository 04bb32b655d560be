// What both peers are given to do, and how it is measured: jobs of one kind, added in batches from a few connections, each due at its own
// time; how late the handler has each.
//
// The first argument is {url, jobs, spanMs, leadMs, batch, connections, payload}; one JSON object is printed.
import { readFileSync } from 'node:fs'

export const task = JSON.parse(process.argv[2])

export const versionOf = (name) =>
  JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url))).version

// `add(jobs)` returns when they are durable; a job is {seq, at}.
export async function addAll (add) {
  const start = Date.now() + task.leadMs
  const jobs = Array.from({ length: task.jobs }, (_, seq) => ({ seq, at: start + seq * task.spanMs / task.jobs }))
  let next = 0
  const began = performance.now()
  const caller = async () => {
    while (next < jobs.length) {
      const from = next
      next += task.batch
      await add(jobs.slice(from, from + task.batch))
    }
  }
  await Promise.all(Array.from({ length: task.connections }, caller))
  const seconds = (performance.now() - began) / 1000
  if (Date.now() > start) throw new Error(`adding took ${seconds.toFixed(1)} s, longer than the ${task.leadMs} ms until the first is due`)
  return seconds
}

// Counts each job once.
export class Arrivals {
  constructor () {
    this.late = new Float64Array(task.jobs).fill(-1)
    this.count = 0
    this.twice = 0
    this.all = new Promise((resolve) => { this.done = resolve })
  }

  // `at`: when it was due, in milliseconds.
  arrived (seq, at) {
    if (this.late[seq] >= 0) { this.twice += 1; return }
    this.late[seq] = Math.max(0, performance.timeOrigin + performance.now() - at)
    this.count += 1
    if (this.count === task.jobs) this.done()
  }

  tell (insertS, version, settings) {
    const late = this.late.sort()
    const rank = (share) => late[Math.min(late.length - 1, Math.floor(late.length * share))]
    console.log(JSON.stringify({
      version,
      node: process.version,
      settings,
      insert_per_s: task.jobs / insertS,
      late_ms: { p50: rank(0.5), p99: rank(0.99), max: late.at(-1) },
      twice: this.twice
    }))
  }
}
