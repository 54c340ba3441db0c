// Package linediff shows how a text has changed, line by line.
package linediff

import "strings"

// Between shows how a text differs from an earlier version, line by line: removed lines with -, added lines with +, and a few
// lines around them.
func Between(was, is string) string {
	a, b := strings.Split(was, "\n"), strings.Split(is, "\n")
	head, tail := 0, 0
	for head < min(len(a), len(b)) && a[head] == b[head] {
		head++
	}
	for tail < min(len(a), len(b))-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	var lines []string // each with its mark
	for _, line := range a[:head] {
		lines = append(lines, "  "+line)
	}
	lines = append(lines, differ(a[head:len(a)-tail], b[head:len(b)-tail])...)
	for _, line := range a[len(a)-tail:] {
		lines = append(lines, "  "+line)
	}
	return nearChanges(lines)
}

// differ marks the lines of two texts so that as many as possible are common; of very long texts it marks all lines.
func differ(a, b []string) (lines []string) {
	if len(a)*len(b) <= 1_000_000 {
		// common[i][j] is how many lines a[i:] and b[j:] have in common.
		common := make([][]int, len(a)+1)
		for i := range common {
			common[i] = make([]int, len(b)+1)
		}
		for i := len(a) - 1; i >= 0; i-- {
			for j := len(b) - 1; j >= 0; j-- {
				if a[i] == b[j] {
					common[i][j] = common[i+1][j+1] + 1
				} else {
					common[i][j] = max(common[i+1][j], common[i][j+1])
				}
			}
		}
		for len(a) > 0 && len(b) > 0 {
			here := common[len(common)-1-len(a):]
			at := len(here[0]) - 1 - len(b)
			switch {
			case a[0] == b[0]:
				lines, a, b = append(lines, "  "+a[0]), a[1:], b[1:]
			case here[1][at] >= here[0][at+1]:
				lines, a = append(lines, "- "+a[0]), a[1:]
			default:
				lines, b = append(lines, "+ "+b[0]), b[1:]
			}
		}
	}
	for _, line := range a {
		lines = append(lines, "- "+line)
	}
	for _, line := range b {
		lines = append(lines, "+ "+line)
	}
	return lines
}

// nearChanges leaves out the lines that are far from any change.
func nearChanges(lines []string) string {
	const around = 3
	var text strings.Builder
	near := func(i int) bool {
		for _, line := range lines[max(0, i-around):min(len(lines), i+around+1)] {
			if line[0] != ' ' {
				return true
			}
		}
		return false
	}
	left := false
	for i, line := range lines {
		if !near(i) {
			left = true
			continue
		}
		if left && text.Len() > 0 {
			text.WriteString("…\n")
		}
		left = false
		text.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return text.String()
}
