// Batches, several workers, fetching on as long as batches are full; half a second is the shortest pause between two looks that it takes.
import { PgBoss } from 'pg-boss'
import { Arrivals, addAll, task, versionOf } from './job.mjs'

const work = { localConcurrency: 4, batchSize: 500, pollingIntervalSeconds: 0.5, burstWhenBatchFull: true }
const boss = new PgBoss({ connectionString: task.url, max: 10 })
boss.on('error', (error) => { throw error })
await boss.start()
await boss.createQueue('job')
const insertS = await addAll((jobs) => boss.insert('job', jobs.map(({ seq, at }) => (
  { data: { seq, at, text: 'a'.repeat(task.payload) }, startAfter: new Date(at) }))))
const arrivals = new Arrivals()
await boss.work('job', work, async (jobs) => {
  for (const { data: { seq, at } } of jobs) arrivals.arrived(seq, at)
})
await arrivals.all
arrivals.tell(insertS, versionOf('pg-boss'), { ...work, add: 'insert' })
await boss.stop({ graceful: true, timeout: 5000 })
