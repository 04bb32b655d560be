// The settings follow its page on performance: batches of jobs are taken into a local queue, and completed in batches. A job of the
// future is found by polling alone, so it polls as often as a query takes.
import { Logger, makeWorkerUtils, run } from 'graphile-worker'
import { Arrivals, addAll, task, versionOf } from './job.mjs'

const worker = {
  concurrentJobs: 24,
  maxPoolSize: 26,
  pollInterval: 10,
  localQueue: { size: 500 },
  completeJobBatchDelay: 0,
  failJobBatchDelay: 0
}
const logger = new Logger(() => () => {})
const utils = await makeWorkerUtils({ connectionString: task.url, logger, maxPoolSize: task.connections })
await utils.migrate()
const insertS = await addAll((jobs) => utils.addJobs(jobs.map(({ seq, at }) => (
  { identifier: 'job', payload: { seq, at, text: 'a'.repeat(task.payload) }, runAt: new Date(at) }))))
const arrivals = new Arrivals()
const runner = await run({
  preset: { worker: { ...worker, connectionString: task.url, logger } },
  noHandleSignals: true,
  taskList: { job: async ({ seq, at }) => arrivals.arrived(seq, at) }
})
await arrivals.all
arrivals.tell(insertS, versionOf('graphile-worker'), { ...worker, add: 'addJobs' })
await runner.stop()
await utils.release()
