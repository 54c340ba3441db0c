// Package house holds the tests that keep the project in order: who may import whom, that every package and exported name says
// what it is, that the README's programs, commands and their output are real, that documents name errors, tests and files that
// there are, and that the examples run. It has no code.
//
// The rules are in imports_test.go. Folders and packages are discovered: a new one is held to the rules without being
// listed, and one that needs a rule of its own fails until it has one.
package house
