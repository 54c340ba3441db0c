// Package lab contains what experiments on the library share: `sqlq bench`, the torture test, its failover, and bench/peers.
//
//   - Process and Child are the two ends of a process that an experiment starts: what it is told, what it reports, how it ends.
//   - Proxy stands between a process and its server. It can delay connections, swallow their data, and cut them.
//   - NewPool, Execute, Waiting and Lie are for the database; Lie says where each message is, so that none is unaccounted for.
//   - Series, Percentile, InParallel and the like measure, and format figures.
package lab
