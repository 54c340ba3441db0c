package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// tree is the command tree, new for each use, because flags keep what was parsed.
func tree() *cobra.Command { return newRootCommand(newEnv(streams{})) }

// TestDocs holds docs/cli equal to the commands' own help: a page for each command of the first level, with all below it.
// go test ./internal/cli -run TestDocs -update writes it.
func TestDocs(t *testing.T) {
	t.Parallel()
	dir := filepath.Join("..", "..", "docs", "cli")
	pages := cliPages(tree())
	if *update {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		for name, text := range pages {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
				t.Fatal(err)
			}
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if _, known := pages[file.Name()]; known {
			continue
		}
		if *update {
			if err := os.Remove(filepath.Join(dir, file.Name())); err != nil {
				t.Fatal(err)
			}
		} else {
			t.Errorf("docs/cli/%s is the page of no command", file.Name())
		}
	}
	for name, want := range pages {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("docs/cli/%s is not what the commands say, err %v; go test ./internal/cli -run TestDocs -update mends it", name, err)
		}
	}
}

// cliPages are the pages of docs/cli by file name.
func cliPages(root *cobra.Command) map[string]string {
	root.PersistentFlags().Lookup("schema").DefValue = "sqlq" // whatever $SQLQ_SCHEMA says here
	pages := map[string]string{}
	var index strings.Builder
	fmt.Fprintf(&index, "# The command line\n\n%s\n", paragraphs(root.Long))
	for _, group := range root.Groups() {
		fmt.Fprintf(&index, "\n**%s**\n\n| | |\n|---|---|\n", strings.TrimSuffix(group.Title, ":"))
		for _, c := range root.Commands() {
			if c.GroupID != group.ID {
				continue
			}
			name := c.Name() + ".md"
			fmt.Fprintf(&index, "| [`%s`](%s) | %s |\n", c.CommandPath(), name, strings.ReplaceAll(c.Short, "|", `\|`))
			pages[name] = cliPage(c)
		}
	}
	fmt.Fprintf(&index, "\n## Flags of every command\n\n%s", code(root.PersistentFlags().FlagUsagesWrapped(helpWidth)))
	index.WriteString(`
## Exit codes

| code | means |
|---|---|
| 0 | done |
| 1 | an error |
| 2 | the command line is wrong |
| 3 | a check found something |
| 4 | no connection to the database, or not allowed there |
| 5 | nothing matched |
| 130 | interrupted |
`)
	pages["README.md"] = index.String()
	return pages
}

// cliPage is the page of a command and those below it.
func cliPage(c *cobra.Command) string {
	var b strings.Builder
	var write func(c *cobra.Command, level string)
	write = func(c *cobra.Command, level string) {
		about := c.Short + "."
		if c.Long != "" {
			about = paragraphs(c.Long)
		}
		fmt.Fprintf(&b, "%s %s\n\n%s\n", level, c.CommandPath(), about)
		subs := slices.DeleteFunc(slices.Clone(c.Commands()), func(sub *cobra.Command) bool { return !sub.IsAvailableCommand() })
		if len(subs) == 0 {
			fmt.Fprintf(&b, "\n%s", code(c.UseLine()+"\n"))
		}
		if c.Example != "" {
			fmt.Fprintf(&b, "\nExamples:\n\n%s", code(unindented(c.Example)+"\n"))
		}
		if flags := c.NonInheritedFlags(); len(subs) == 0 && flags.HasAvailableFlags() {
			fmt.Fprintf(&b, "\nFlags, besides [those of every command](README.md#flags-of-every-command):\n\n%s", code(flags.FlagUsagesWrapped(helpWidth)))
		}
		for _, sub := range subs {
			b.WriteByte('\n')
			write(sub, "##")
		}
	}
	write(c, "#")
	return b.String()
}

// paragraphs is a help text in Markdown: lines that are indented there are a block.
func paragraphs(text string) string {
	var out []string
	inside := false
	for _, line := range strings.Split(text, "\n") {
		indented := strings.HasPrefix(line, "  ")
		switch {
		case indented && !inside, inside && !indented && line != "":
			out = append(out, "```")
			inside = indented
		}
		out = append(out, line)
	}
	if inside {
		out = append(out, "```")
	}
	return strings.Join(out, "\n")
}

func code(text string) string { return "```\n" + text + "```\n" }

func unindented(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], "  ")
	}
	return strings.Join(lines, "\n")
}

// leaves calls visit with each command that does something and is for people.
func leaves(c *cobra.Command, visit func(*cobra.Command)) {
	if !c.HasSubCommands() && !c.Hidden {
		visit(c)
	}
	for _, sub := range c.Commands() {
		leaves(sub, visit)
	}
}

// below is a command's path without the program's name.
func below(c *cobra.Command) string { return strings.TrimPrefix(c.CommandPath(), "sqlq ") }

// TestEveryCommandIsDescribed wants a sentence and two examples for each command, and examples that can be typed.
func TestEveryCommandIsDescribed(t *testing.T) {
	t.Parallel()
	leaves(tree(), func(c *cobra.Command) {
		for _, fault := range described(c) {
			t.Errorf("%s: %s", c.CommandPath(), fault)
		}
	})
}

func described(c *cobra.Command) (faults []string) {
	if c.Short == "" || strings.HasSuffix(c.Short, ".") || len(c.Short) > 75 {
		faults = append(faults, fmt.Sprintf("its sentence is missing, too long, or ends with a full stop: %q", c.Short))
	}
	examples := 0
	for line := range strings.Lines(c.Example) {
		if !strings.HasPrefix(line, "  ") || strings.HasPrefix(line, "   ") {
			faults = append(faults, fmt.Sprintf("an example is not indented by two blanks: %q", line))
		}
		for _, words := range commandLines(line) {
			examples++
			if err := parses(words); err != nil {
				faults = append(faults, fmt.Sprintf("example %q: %v", strings.TrimSpace(line), err))
			}
		}
	}
	if examples < 2 {
		faults = append(faults, fmt.Sprintf("it has %d examples, not two", examples))
	}
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if f.Usage == "" {
			faults = append(faults, "--"+f.Name+" is not described")
		}
	})
	return faults
}

// parses tries a command line without running it.
func parses(words []string) error {
	c, rest, err := tree().Find(words[1:])
	if err != nil {
		return err
	}
	if err := c.ParseFlags(rest); err != nil {
		return err
	}
	if err := c.ValidateArgs(c.Flags().Args()); err != nil {
		return err
	}
	return c.ValidateRequiredFlags()
}

// commandLines takes the calls of sqlq out of a line for the shell, each in words. It knows quotes, comments, pipes, lists,
// substitutions and redirections, not all else that shells do.
func commandLines(line string) (calls [][]string) {
	var words []string
	var word strings.Builder
	begun, redirected := false, false
	endWord := func() {
		if begun && !redirected {
			words = append(words, word.String())
		}
		if begun {
			redirected = false
		}
		word.Reset()
		begun = false
	}
	endCall := func() {
		endWord()
		for len(words) > 0 && regexp.MustCompile(`^[A-Z_]+=`).MatchString(words[0]) {
			words = words[1:]
		}
		if len(words) > 0 && words[0] == "sqlq" {
			calls = append(calls, words)
		}
		words = nil
	}
	quote := rune(0)
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, begun = r, true
		case r == '#' && !begun:
			endCall()
			return calls
		case r == '(':
			endCall()
			redirected = false
		case r == '|' || r == ';' || r == '&' || r == ')' || r == '\n':
			endCall()
		case r == '<' || r == '>':
			if word.String() == "2" {
				word.Reset()
				begun = false
			}
			endWord()
			redirected = true
		case r == ' ' || r == '\t':
			endWord()
		default:
			begun = true
			word.WriteRune(r)
		}
	}
	endCall()
	return calls
}

// documented calls visit with the command lines in the project's pages: those in blocks, also behind a prompt, and
// those that stand in the prose as code.
func documented(t *testing.T, visit func(at string, words []string)) {
	t.Helper()
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) < 4 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	span := regexp.MustCompile("`(sqlq [^`]*)`")
	for _, name := range append(pages, "../../README.md") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		inBlock := false
		for i, line := range strings.Split(string(text), "\n") {
			at := fmt.Sprintf("%s:%d", strings.TrimPrefix(name, "../../"), i+1)
			if strings.HasPrefix(line, "```") {
				inBlock = !inBlock
				continue
			}
			lines := []string{strings.TrimPrefix(strings.TrimSpace(line), "$ ")}
			if !inBlock {
				lines = nil
				for _, found := range span.FindAllStringSubmatch(line, -1) {
					lines = append(lines, strings.ReplaceAll(found[1], "…", ""))
				}
			}
			for _, one := range lines {
				for _, words := range commandLines(one) {
					visit(at, words)
				}
			}
		}
	}
}

// TestDocumentedCommands holds the pages to name commands, flags and arguments that there are.
func TestDocumentedCommands(t *testing.T) {
	t.Parallel()
	tried := 0
	documented(t, func(at string, words []string) {
		tried++
		if err := parses(words); err != nil {
			t.Errorf("%s: %s: %v", at, strings.Join(words, " "), err)
		}
	})
	if tried < 5 {
		t.Errorf("only %d command lines found", tried)
	}
}

func TestCommandLines(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		`sqlq queue ls`: `[["sqlq" "queue" "ls"]]`,
		`  sqlq error ls --body '$.amount > 100' -o jsonl | jq -r .id | sqlq error show --id - > x 2>&1`: `[["sqlq" "error" "ls" "--body" "$.amount > 100" "-o" "jsonl"] ["sqlq" "error" "show" "--id" "-"]]`,
		`PGHOST=a sqlq top # sqlq not this`:               `[["sqlq" "top"]]`,
		`source <(sqlq completion bash); sqlq send "a b"`: `[["sqlq" "completion" "bash"] ["sqlq" "send" "a b"]]`,
		`echo sqlq`: `[]`,
	} {
		if got := fmt.Sprintf("%q", commandLines(line)); got != want {
			t.Errorf("%s: got %s", line, got)
		}
	}
	for _, wrong := range [][]string{{"sqlq", "queu", "ls"}, {"sqlq", "queue", "ls", "--no-such"}, {"sqlq", "queue", "ls", "sales"}, {"sqlq", "queue", "lss"}, {"sqlq", "send", "sales"}} {
		if parses(wrong) == nil {
			t.Errorf("%q parses", wrong)
		}
	}
}
