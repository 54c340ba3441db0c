// Package house contains the tests that keep the project in order: which package may import which, that every package and exported
// name has a comment, that the README's programs, commands and output are real, that documents name errors, tests and files that
// exist, and that the examples run. It has no code.
//
// The rules are in imports_test.go. Folders and packages are discovered: the rules apply to a new one without listing it, and
// one that needs a rule of its own fails until it has one.
package house
