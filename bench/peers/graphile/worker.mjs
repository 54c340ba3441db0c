// Runs graphile-worker for the comparison: node worker.mjs <database url> <tuned|defaults>
//
// It migrates the database, writes "ready", handles jobs, and writes a line for each: the order's id and when it was
// handled, in microseconds since 1970. When its standard input ends it stops gracefully.
import { Logger, run, runMigrations } from "graphile-worker";

const [connectionString, how] = process.argv.slice(2);

const logger = new Logger(() => (level, message) => {
  if (level === "error" || level === "warning") console.error(message);
});

// As graphile-worker's own perfTest is set.
const tuned = {
  concurrentJobs: 24,
  maxPoolSize: 25,
  localQueue: { size: 500, refetchDelay: { durationMs: 10 } },
  completeJobBatchDelay: 0,
  failJobBatchDelay: 0,
};

let lines = [];
const flush = () => {
  if (lines.length === 0) return;
  process.stdout.write(lines.join(""));
  lines = [];
};

const preset = { worker: { connectionString, logger, ...(how === "tuned" ? tuned : {}) } };
await runMigrations({ preset });
if (how !== "migrate") {
  const runner = await run({
    preset,
    noHandleSignals: true,
    taskList: {
      place_order: async (order) => {
        if (lines.push(`${order.id} ${Math.round((performance.timeOrigin + performance.now()) * 1000)}\n`) === 1) setImmediate(flush);
      },
    },
  });
  process.stdout.write("ready\n");
  process.stdin.resume();
  await new Promise((ended) => process.stdin.on("close", ended));
  await runner.stop();
  flush();
}
