// Package term writes text to a terminal: tables, colours, a progress line. It also knows the widths of characters.
//
// Widths are cells of the terminal, not bytes or code points, and control sequences in text from outside are made harmless: see Width
// and Visible.
package term
