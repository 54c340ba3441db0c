// Package lab is what experiments on the library share: `sqlq bench`, the torture trial, its failover, and bench/peers.
//
//   - Process and Child are the two ends of a process that an experiment starts: what it is told, what it says, how it ends.
//   - Proxy stands between a process and its server, and can delay, swallow and cut connections.
//   - NewPool, Execute, Waiting and Lie are for the database; Lie says where each message is, which accounts are made of.
//   - Series, Percentile, InParallel and their like measure, and write figures.
package lab
