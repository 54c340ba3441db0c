package house

import (
	"context"
	"flag"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
)

var update = flag.Bool("update", false, "rewrite the README's blocks that are no longer true")

// block is the text between two fences of a Markdown file.
type block struct {
	language string
	line     int // of its first line, counted from 1
	lines    []string
}

func (b block) text() string { return strings.Join(b.lines, "\n") + "\n" }

// page is a Markdown file in pieces: its lines, and the blocks that start after some of them.
type page struct {
	lines  []string // without those of fenced blocks
	blocks map[int]*block
}

func readPage(t *testing.T, text string) page {
	t.Helper()
	p := page{blocks: map[int]*block{}}
	var open *block
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		language, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && open == nil:
			p.lines = append(p.lines, line)
			open = &block{language: language, line: i + 2}
			p.blocks[len(p.lines)-1] = open
		case fence:
			p.lines = append(p.lines, line)
			open = nil
		case open != nil:
			open.lines = append(open.lines, line)
		default:
			p.lines = append(p.lines, line)
		}
	}
	if open != nil {
		t.Fatalf("the block at line %d is not closed", open.line)
	}
	return p
}

func (p page) String() string {
	var b strings.Builder
	for i, line := range p.lines {
		b.WriteString(line + "\n")
		if block := p.blocks[i]; block != nil && len(block.lines) > 0 {
			b.WriteString(block.text())
		}
	}
	return b.String()
}

// each calls visit with the blocks in order.
func (p page) each(visit func(*block)) {
	for i := range p.lines {
		if b := p.blocks[i]; b != nil {
			visit(b)
		}
	}
}

// command is a line of a transcript that starts with a dollar sign, and the output that follows it.
type command struct {
	block  *block
	text   string
	output string
}

// TestReadme checks that the README is true: its program is examples/hello, its diagram is the one in the package's
// documentation, and each command prints what the README shows, apart from what differs in every run. Commands see the effects
// of earlier ones.
func TestReadme(t *testing.T) {
	t.Parallel()
	before := string(read(t, "README.md"))
	readme := readPage(t, before)
	var commands []*command
	var named []*block // commands without output
	var sql []string   // to run before the command with the same index
	readme.each(func(b *block) {
		switch b.language {
		case "go":
			if strings.Contains(b.text(), "package main\n") {
				hold(t, b, string(read(t, "examples", "hello", "main.go")))
			} else if !strings.Contains(string(read(t, "examples", "exactlyonce", "main.go")), b.text()) {
				t.Errorf("README.md:%d: the block is not part of examples/exactlyonce", b.line)
			}
		case "sh":
			named = append(named, b)
		case "text":
			hold(t, b, drawing(t))
		case "console":
			commands = append(commands, transcript(t, b)...)
		case "sql":
			sql = append(sql, make([]string, len(commands)+1-len(sql))...)
			sql[len(commands)] += b.text()
		default:
			t.Errorf("README.md:%d: no test checks a block of %q", b.line, b.language)
		}
	})
	if text := string(read(t, "examples", "hello", "main.go")); strings.Count(text, "\n") >= 40 || !strings.Contains(before, text) && !*update {
		t.Error("examples/hello has 40 lines or more, or is not in the README")
	}
	for i, want := range []string{"go run ./cmd/sqlq demo", "go test ./..."} {
		if len(commands) <= i || commands[i].text != want {
			t.Errorf("command %d of the README is not %q", i+1, want)
		}
	}

	for _, b := range named {
		holdNamed(t, b, commands)
	}

	t.Run("commands", func(t *testing.T) {
		url := pgtest.Database(t)
		shell := newShell(t, url)
		for i, c := range commands {
			if i < len(sql) && sql[i] != "" {
				execute(t, url, sql[i])
			}
			switch {
			case c.text == "go test ./...":
				holdTestOutput(t, c)
			case strings.HasPrefix(c.text, "go run ./cmd/sqlq demo"):
				t.Run("demo", func(t *testing.T) { // in parallel with the others: it is independent of them, and slow
					t.Parallel()
					c.hold(t, shell)
				})
			default:
				c.hold(t, shell)
			}
		}
	})
	if *update && !t.Failed() {
		rewrite(commands)
		if after := readme.String(); after != before {
			if err := os.WriteFile(filepath.Join(root, "README.md"), []byte(after), 0o666); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// holdNamed checks that some transcript runs each command of a block. A command may be followed by a comment.
func holdNamed(t *testing.T, b *block, commands []*command) {
	t.Helper()
	for i, line := range b.lines {
		line, _, _ = strings.Cut(line, "   #")
		runs := func(c *command) bool { return c.text == line }
		if line != "go get "+module+"/sqlq" && !slices.ContainsFunc(commands, runs) {
			t.Errorf("README.md:%d: no transcript runs %q", b.line+i, line)
		}
	}
}

// hold compares a block with the text that it should have.
func hold(t *testing.T, b *block, want string) {
	t.Helper()
	if *update {
		b.lines = strings.Split(strings.TrimSuffix(want, "\n"), "\n")
	}
	if b.text() != want {
		t.Errorf("README.md:%d: the block is not\n%s\n(go test ./internal/house -update fixes it)", b.line, want)
	}
}

// drawing returns the diagram of the flow in the documentation of package sqlq.
func drawing(t *testing.T) string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "doc.go", read(t, "sqlq", "doc.go"), parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	_, doc, found := strings.Cut(file.Doc.Text(), "# The path of a message\n\n")
	if !found {
		t.Fatal("sqlq/doc.go has no diagram of the flow")
	}
	var lines strings.Builder
	for line := range strings.Lines(doc) {
		if !strings.HasPrefix(line, "\t") {
			break
		}
		lines.WriteString(strings.TrimPrefix(line, "\t"))
	}
	return lines.String()
}

// transcript splits a block into commands.
func transcript(t *testing.T, b *block) (commands []*command) {
	t.Helper()
	for i, line := range b.lines {
		if text, is := strings.CutPrefix(line, "$ "); is {
			commands = append(commands, &command{block: b, text: text})
		} else if len(commands) == 0 {
			t.Fatalf("README.md:%d: the transcript does not begin with a command", b.line+i)
		} else {
			commands[len(commands)-1].output += line + "\n"
		}
	}
	return commands
}

// rewrite writes the outputs of commands into their blocks.
func rewrite(commands []*command) {
	for _, c := range commands {
		c.block.lines = nil
	}
	for _, c := range commands {
		c.block.lines = append(c.block.lines, "$ "+c.text)
		if c.output != "" {
			c.block.lines = append(c.block.lines, strings.Split(strings.TrimSuffix(c.output, "\n"), "\n")...)
		}
	}
}

// shell is the environment in which the README's commands run: the module's root, with sqlq on the path and a database.
type shell struct {
	bin string // the folder of sqlq
	env []string
}

func newShell(t *testing.T, url string) shell {
	t.Helper()
	bin := programs(t)
	return shell{bin: bin, env: append(os.Environ(), "DATABASE_URL="+url, "SQLQ_DATABASE_URL="+url, "SQLQ_SCHEMA="+pgtest.Schema,
		"PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))}
}

// run runs a command and returns what it prints, including standard error.
func (s shell) run(ctx context.Context, command string) (string, error) {
	c := exec.CommandContext(ctx, "sh", "-c", command)
	c.Dir, c.Env = root, s.env
	out, err := c.CombinedOutput()
	return string(out), err
}

// hold runs the command and compares what it prints with the README.
func (c *command) hold(t *testing.T, s shell) {
	t.Helper()
	got, err := s.run(t.Context(), c.text)
	if err != nil {
		t.Fatalf("README.md:%d: $ %s\n%v\n%s", c.block.line, c.text, err, got)
	}
	if normal(got) == normal(c.output) {
		return
	}
	if *update {
		c.output = presentable(got)
		return
	}
	t.Errorf("README.md:%d: $ %s\nprinted\n%s\nREADME says\n%s\n(go test ./internal/house -update fixes it)\n--- normalised:\n%s\n---\n%s",
		c.block.line, c.text, got, c.output, normal(got), normal(c.output))
}

// varies lists what differs from run to run, and what replaces it in a comparison.
var varies = []struct {
	what *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "ID"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z`), "TIME"},
	{regexp.MustCompile(`(?m)^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d`), "TIME"},
	{regexp.MustCompile(`(?m)^(host +)\S+`), "${1}HOST"},
	// The demo's: its audit is compared as it is, the rest of the story without its numbers.
	{regexp.MustCompile(`(?m)^(\d+ orders on PostgreSQL ).*$`), "${1}VERSION"},
	{regexp.MustCompile(`(?m)^ +NUMBER +QUEUE .*\n(?: +\d+ +.*\n)+`), "FAILED MESSAGES\n"},
	{regexp.MustCompile(`\d+ in all, in \d+ groups?:`), "N in all, in N groups:"},
	{regexp.MustCompile(`\d+(?: → \d+)+`), "N"},
	{regexp.MustCompile(`\d+(?:\.\d+)? (?:µs|ms|s)\b`), "N s"},
	{regexp.MustCompile(`✓ \d+ (orders in so far|are in the error table|replayed)`), "✓ N $1"},
	{regexp.MustCompile(`\d+ (placed\.\n|are waiting for their next attempt)`), "N $1"},
	{regexp.MustCompile(`(?m)^(  failed, then replayed +)\d+$`), "${1}N"},
	{regexp.MustCompile(` +`), " "},
}

// normal returns an output without what differs from run to run.
func normal(output string) string {
	for _, v := range varies {
		output = v.what.ReplaceAllString(output, v.with)
	}
	return output
}

// presentable removes from an output what is specific to this machine.
func presentable(output string) string {
	if name, err := os.Hostname(); err == nil && name != "" {
		output = regexp.MustCompile(`(?m)^(host +)`+regexp.QuoteMeta(name)+`$`).ReplaceAllString(output, "${1}laptop")
	}
	return output
}

// holdTestOutput checks that the packages whose tests the README shows have tests. It cannot run them: it is one of them.
func holdTestOutput(t *testing.T, c *command) {
	t.Helper()
	tested := map[string]bool{}
	for _, p := range own(t) {
		tested[module+"/"+p.dir] = p.tests
	}
	shown := regexp.MustCompile(`(?m)^ok +\t(\S+)\t`).FindAllStringSubmatch(c.output, -1)
	if len(shown) == 0 {
		t.Errorf("README.md:%d: $ %s: no output", c.block.line, c.text)
	}
	for _, ok := range shown {
		if !tested[ok[1]] {
			t.Errorf("README.md:%d: $ %s: package %s has no tests", c.block.line, c.text, ok[1])
		}
	}
}

func execute(t *testing.T, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Errorf("README.md: %s%v", sql, err)
	}
}

// link matches a Markdown link to a file of the project.
var link = regexp.MustCompile(`\]\(([^):#]+)(?:#[^)]*)?\)`)

// TestLinks checks that the links in the project's pages point to existing files.
func TestLinks(t *testing.T) {
	t.Parallel()
	pages := 0
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(name) != ".md" {
			return err
		}
		pages++
		prose := strings.Join(readPage(t, string(read(t, name))).lines, "\n")
		for _, target := range link.FindAllStringSubmatch(prose, -1) {
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(name), target[1])); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		return nil
	})
	if err != nil || pages < 4 {
		t.Errorf("%d pages, %v", pages, err)
	}
}

func TestReadPage(t *testing.T) {
	t.Parallel()
	const text = "# A\n\n```go\na\n\nb\n```\n\n```console\n$ x\n1\n2\n$ y\n```\nend\n"
	p := readPage(t, text)
	var blocks []block
	p.each(func(b *block) { blocks = append(blocks, *b) })
	if len(blocks) != 2 || blocks[0].line != 4 || blocks[0].text() != "a\n\nb\n" || blocks[1].language != "console" {
		t.Errorf("%+v", blocks)
	}
	commands := transcript(t, &blocks[1])
	if got := fmt.Sprintf("%q %q", commands[0].output, commands[1].output); got != `"1\n2\n" ""` || !slices.Equal([]string{commands[0].text, commands[1].text}, []string{"x", "y"}) {
		t.Errorf("%s", got)
	}
	if p.String() != text {
		t.Errorf("came back as %q", p.String())
	}
}

func TestNormal(t *testing.T) {
	t.Parallel()
	const told = "  ✓ 12 replayed in 1.5 s, backlog 3 → 40 → 0.\nhost   x\n  id 01a1fcb8-eedc-7e80-89fb-c6494dc502ea\n"
	const same = "  ✓ 9 replayed in 2.25 ms, backlog 3 → 0.\nhost   shop-1\n  id 02a1fcb8-eedc-7e80-89fb-c6494dc502eb\n"
	const other = "  ✓ 9 lost in 2.25 ms, backlog 3 → 0.\nhost   shop-1\n  id 02a1fcb8-eedc-7e80-89fb-c6494dc502eb\n"
	if normal(told) != normal(same) {
		t.Errorf("%q differs from %q", normal(told), normal(same))
	}
	if normal(told) == normal(other) {
		t.Errorf("%q is the same as another", normal(told))
	}
}
