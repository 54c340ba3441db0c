// Package term is text on a terminal: tables, colours, a line of progress, and the widths of characters.
//
// Widths are cells of the terminal, not bytes or code points, and text from outside is never obeyed: see Width and Visible.
package term
