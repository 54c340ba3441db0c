// Package lab is what experiments on the library share: bench, torture, failover and bench/peers.
//
//   - Process and Child are the two ends of a process that an experiment starts: what it is told, what it says, its end.
//   - Proxy stands between a process and its server, and can delay, swallow and cut connections.
package lab
