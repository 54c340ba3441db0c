//go:build unix && !linux

package devpg

// memoryRoot returns "": here a file system in memory would have to be created first.
func memoryRoot() string { return "" }
