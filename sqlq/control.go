package sqlq

import (
	"fmt"
	"strings"
)

// refuseControl refuses a statement that would end the receive transaction, or undo what the library keeps in it, by the words
// with which it begins. What ends the transaction in another way is noticed afterwards, by the state of the connection.
func refuseControl(words []string) error {
	if len(words) == 0 {
		return nil
	}
	rest := words[1:]
	switch words[0] {
	case "COMMIT", "END", "ABORT", "BEGIN", "START":
	case "ROLLBACK":
		if len(rest) > 0 && (rest[0] == "WORK" || rest[0] == "TRANSACTION") {
			rest = rest[1:]
		}
		if len(rest) > 0 && rest[0] == "TO" {
			return refuseSavepoint(words[0], rest[1:])
		}
	case "SAVEPOINT", "RELEASE":
		return refuseSavepoint(words[0], rest)
	case "PREPARE":
		if len(rest) == 0 || rest[0] != "TRANSACTION" {
			return nil
		}
	case "DEALLOCATE":
		if len(rest) > 0 && (rest[0] == "ALL" || len(rest) > 1 && rest[0] == "PREPARE" && rest[1] == "ALL") {
			return fmt.Errorf("%w: DEALLOCATE ALL is refused: the connection's prepared statements are the library's; name yours", ErrTransactionOwned)
		}
		return nil
	default:
		return nil
	}
	return fmt.Errorf("%w: %s is refused; return nil or an error instead", ErrTransactionOwned, words[0])
}

// refuseSavepoint refuses the savepoints of the library; nested transactions begin and end by methods.
func refuseSavepoint(verb string, name []string) error {
	if len(name) > 0 && verb != "SAVEPOINT" && name[0] == "SAVEPOINT" {
		name = name[1:]
	}
	if len(name) == 0 || !strings.HasPrefix(name[0], "SQLQ") {
		return nil
	}
	return fmt.Errorf("%w: savepoint %s is refused: names that begin with sqlq are the library's", ErrTransactionOwned, strings.ToLower(name[0]))
}

// cutStatement returns the words of the first statement of an SQL string, in capitals, with how many of them it begins, and what
// follows it. It knows comments, quotes and parentheses (PostgreSQL manual, 4.1 "Lexical Structure", with
// standard_conforming_strings on), and gives up at the body of a function that is written as statements.
func cutStatement(sql string) (words []string, lead int, rest string) {
	depth, begins := 0, true
	for i := 0; i < len(sql); {
		switch c := sql[i]; {
		case c == ' ' || '\t' <= c && c <= '\r':
			i++
		case strings.HasPrefix(sql[i:], "--"):
			i = after(sql, i, "\n")
		case strings.HasPrefix(sql[i:], "/*"):
			i = afterComment(sql, i)
		case c == ';' && depth <= 0:
			return words, lead, sql[i+1:]
		case isLetter(c):
			from := i
			for i < len(sql) && (isLetter(sql[i]) || '0' <= sql[i] && sql[i] <= '9' || sql[i] == '$') {
				i++
			}
			word := strings.ToUpper(sql[from:i])
			if word == "E" && i < len(sql) && sql[i] == '\'' {
				i = afterQuoted(sql, i, true)
				begins = false
				continue
			}
			words = append(words, word)
			if begins {
				lead++
			}
			if word == "ATOMIC" && words[0] == "CREATE" {
				return words, lead, ""
			}
		default:
			begins = false
			switch c {
			case '(':
				depth++
			case ')':
				depth--
			case '\'', '"':
				i = afterQuoted(sql, i, false) - 1
			case '$':
				i = afterDollar(sql, i) - 1
			}
			i++
		}
	}
	return words, lead, ""
}

func isLetter(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' || c >= 0x80
}

// after returns the place behind the next mark, or the end.
func after(sql string, from int, mark string) int {
	if at := strings.Index(sql[from:], mark); at >= 0 {
		return from + at + len(mark)
	}
	return len(sql)
}

// afterComment skips a comment like this /* and one within it */.
func afterComment(sql string, i int) int {
	depth := 0
	for i < len(sql) {
		switch {
		case strings.HasPrefix(sql[i:], "/*"):
			depth++
			i += 2
		case strings.HasPrefix(sql[i:], "*/"):
			depth--
			i += 2
			if depth == 0 {
				return i
			}
		default:
			i++
		}
	}
	return i
}

// afterQuoted skips 'this', "this" and, with escapes, E'th\'is'. A doubled quote reads as two strings side by side.
func afterQuoted(sql string, i int, escapes bool) int {
	quote := sql[i]
	for i++; i < len(sql); i++ {
		switch {
		case escapes && sql[i] == '\\':
			i++
		case sql[i] == quote:
			if escapes && i+1 < len(sql) && sql[i+1] == quote {
				i++
				continue
			}
			return i + 1
		}
	}
	return len(sql)
}

// afterDollar skips $$this$$ and $tag$this$tag$; of a parameter like $1 the sign.
func afterDollar(sql string, i int) int {
	end := i + 1
	for end < len(sql) && (isLetter(sql[end]) || end > i+1 && '0' <= sql[end] && sql[end] <= '9') {
		end++
	}
	if end == len(sql) || sql[end] != '$' {
		return i + 1
	}
	return after(sql, end+1, sql[i:end+1])
}
