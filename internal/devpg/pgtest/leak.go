package pgtest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// leaveWithin is how long goroutines and sessions that a test has ended may take to disappear.
const leaveWithin = 5 * time.Second

// leftBehind looks for goroutines and sessions of the library, and waits a little for them to end.
func leftBehind() error {
	ctx, cancel := context.WithTimeout(context.Background(), leaveWithin)
	defer cancel()
	for {
		err := errors.Join(goroutines(), sessions(ctx))
		if err == nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// library is the prefix of the names of the library's functions, including its internal packages; its tests are another
// package. A driver's goroutine counts as that of the function that started it, which the stack names too.
const library = "github.com/sqlq/sqlq/sqlq"

// goroutines returns an error with the stacks of goroutines that run in the library or were started by it.
func goroutines() error {
	stacks := make([]byte, 16<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	var left []string
	for _, stack := range strings.Split(string(stacks), "\n\n")[1:] { // the first is this one
		if ofLibrary(stack) {
			left = append(left, stack)
		}
	}
	if left == nil {
		return nil
	}
	return fmt.Errorf("%d goroutines of the library:\n%s", len(left), strings.Join(left, "\n\n"))
}

func ofLibrary(stack string) bool {
	for line := range strings.Lines(stack) {
		line = strings.TrimPrefix(line, "created by ")
		if strings.HasPrefix(line, library+".") || strings.HasPrefix(line, library+"/") {
			return true
		}
	}
	return false
}

// sessions returns an error that lists the library's sessions on the tests' server, if there is one and it is running.
func sessions(ctx context.Context) error {
	s := running.Load()
	if s == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveWithin)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.URL(""))
	if err != nil {
		return fmt.Errorf("look for sessions: %w", err)
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, `
		SELECT format('%s (%s) on %s, %s: %s', application_name, pid, datname, state, query)
		FROM pg_stat_activity WHERE application_name LIKE 'sqlq %' ORDER BY 1`)
	if err != nil {
		return fmt.Errorf("look for sessions: %w", err)
	}
	left, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("look for sessions: %w", err)
	}
	if len(left) > 0 {
		return fmt.Errorf("%d sessions of the library:\n%s", len(left), strings.Join(left, "\n"))
	}
	return nil
}
