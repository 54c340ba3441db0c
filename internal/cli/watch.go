package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/term"
)

// watchable gives a list --watch, with which it is made anew again and again, on one connection: on a terminal in the
// same place, elsewhere one round below the other. Ctrl-C and --timeout are its normal end. The list writes to e.out and
// says what it has to say with e.say.
func watchable(e *env, c *cobra.Command) *cobra.Command {
	var every interval
	list := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		if every == 0 {
			return list(c, args)
		}
		return watch(c.Context(), e, c.CommandPath(), time.Duration(every), func() error {
			err := list(c, args)
			var coded *codedError
			if errors.As(err, &coded) && coded.code == exitNothing { // not yet, or not any more
				e.say("%s", describe(err))
				return nil
			}
			return err
		})
	}
	c.Flags().VarPF(&every, "watch", "", "list anew after this time, until Ctrl-C").NoOptDefVal = "2s"
	return c
}

// watch runs list, which has that name, again and again. The error of the first round ends it; a later one is told, and the next round tried,
// because a database that was lost may come back.
func watch(ctx context.Context, e *env, name string, every time.Duration, list func() error) error {
	e.watching = true
	defer func() {
		if e.watched != nil {
			e.watched.pool.Close()
		}
	}()
	show, end := newRounds(e, name, every)
	defer end()
	next := time.NewTicker(every)
	defer next.Stop()
	for first := true; ; first = false {
		err := show(list)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && first:
			return err
		case err != nil:
			e.say("sqlq: %s; trying again", describe(err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-next.C:
		}
	}
}

// newRounds returns what shows a round, and what is to be done at the end.
func newRounds(e *env, name string, every time.Duration) (show func(list func() error) error, end func()) {
	if e.outTerminal && !term.Dumb() {
		s := &repainted{e: e, out: e.out, err: e.err, title: fmt.Sprintf("%s, every %s; Ctrl-C ends", name, every)}
		return s.show, s.end
	}
	between := map[format]string{formatTable: "\n", formatYAML: "---\n"}[e.format]
	rounds := 0
	return func(list func() error) error {
		if rounds++; rounds > 1 {
			if _, err := io.WriteString(e.out, between); err != nil {
				return err
			}
		}
		return list()
	}, func() {}
}

// repainted shows each round in the place of the one before, on the terminal's second screen. At the end the last round
// stays on the first.
type repainted struct {
	e        *env
	out, err io.Writer // the terminal
	title    string
	last     []byte
	begun    bool
}

const (
	secondScreen = "\x1b[?1049h\x1b[?25l" // and no cursor
	firstScreen  = "\x1b[?25h\x1b[?1049l"
	toTheTop     = "\x1b[H"
	clearLine    = "\x1b[K\r\n"
	clearBelow   = "\x1b[J"
)

func (s *repainted) show(list func() error) error {
	height := 0
	if f, is := s.e.stdout().(*os.File); is { // it may have been resized
		if w, h, err := term.Size(f); err == nil {
			s.e.width, height = w, h
		}
	}
	var round bytes.Buffer
	s.e.out = &round
	if s.e.errTerminal {
		s.e.err = &round
	}
	err := list()
	s.e.out, s.e.err = s.out, s.err
	if err != nil && !s.begun {
		_, _ = s.out.Write(round.Bytes())
		return err
	}
	if err != nil {
		fmt.Fprintf(&round, "%s\n", s.e.paint(term.Red, describe(err)+"; trying again"))
	} else {
		s.last = round.Bytes()
	}
	frame := toTheTop
	if !s.begun {
		frame, s.begun = secondScreen+toTheTop, true
	}
	lines := append([]string{s.e.paint(term.Faint, time.Now().Format(time.TimeOnly)+"  "+s.title), ""},
		strings.Split(strings.TrimRight(round.String(), "\n"), "\n")...)
	if height > 1 && len(lines) > height-1 {
		lines = append(lines[:height-2], s.e.paint(term.Faint, fmt.Sprintf("… %d more lines", len(lines)-height+2)))
	}
	_, writeErr := io.WriteString(s.out, frame+strings.Join(lines, clearLine)+clearLine+clearBelow)
	return writeErr
}

func (s *repainted) end() {
	if s.begun {
		_, _ = io.WriteString(s.out, firstScreen)
		_, _ = s.out.Write(s.last)
	}
}
