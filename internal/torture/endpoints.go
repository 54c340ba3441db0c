package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sqlq/sqlq/internal/devpg"
	"github.com/sqlq/sqlq/internal/lab"
	"github.com/sqlq/sqlq/internal/torture/endpoints"
	"github.com/sqlq/sqlq/sqlq/migrate"
)

// endpointsScenario is one of its own: see package endpoints.
const endpointsScenario = "endpoints"

func runEndpoints(ctx context.Context, duration time.Duration, rate int, seed uint64, format string, out, errs io.Writer) int {
	result, err := tryEndpoints(ctx, endpoints.Options{Duration: duration, Rate: rate, Seed: seed, Log: errs})
	if err != nil {
		fmt.Fprintln(errs, "torture:", err)
		return 1
	}
	if format == "json" {
		lines := json.NewEncoder(out)
		lines.SetIndent("", "  ")
		err = lines.Encode(result)
	} else {
		_, err = fmt.Fprintf(out, "%d endpoints started and %d stopped in %.0f s: %d messages, %d lost, %d double effects, at most %d connections, %d goroutines left\n",
			result.Started, result.Stopped, result.Seconds, result.Sent, result.Lost, result.DoubleEffects, result.ConnectionsMax, result.GoroutinesLeft)
	}
	if err != nil {
		fmt.Fprintln(errs, err)
		return 1
	}
	if err := result.Err(); err != nil {
		fmt.Fprintln(errs, "wrong:", err)
		return 1
	}
	return 0
}

func tryEndpoints(ctx context.Context, o endpoints.Options) (r *endpoints.Result, err error) {
	server, err := devpg.TestOptions()
	if err != nil {
		return nil, err
	}
	s, err := devpg.Start(ctx, server)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	const database = "endpoints"
	if err := lab.Execute(ctx, s.URL(""), `CREATE DATABASE `+database); err != nil {
		return nil, err
	}
	if err := migrate.Up(ctx, s.URL(database), "sqlq"); err != nil {
		return nil, err
	}
	o.URL = s.URL(database)
	return endpoints.Run(ctx, o)
}
