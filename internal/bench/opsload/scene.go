package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg"
	"github.com/sqlq/sqlq/sqlq/migrate"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// size is how much there is, and how often it is looked at.
type size struct {
	waiting, failed, replayed, runs int
	filters                         bool
}

const (
	schema = "sqlq"
	groups = 40
)

var queues = []string{"sales", "billing", "shipping"}

// scene is a server on which much has failed.
type scene struct {
	server *devpg.Server
	pool   *pgxpool.Pool
	ops    *ops.Ops

	number, id string          // of a failed message in the middle
	others     []*pgxpool.Pool // as other roles
}

func (s *scene) close() {
	for _, pool := range s.others {
		pool.Close()
	}
	if s.pool != nil {
		s.pool.Close()
	}
	s.server.Stop()
}

// set starts a server and fills it.
func set(ctx context.Context, z size, o devpg.Options, told func(step string)) (*scene, error) {
	told("starting a throw-away PostgreSQL")
	server, err := devpg.Start(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("start a throw-away server: %w", err)
	}
	s := &scene{server: server}
	if err := s.fill(ctx, z, told); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *scene) fill(ctx context.Context, z size, told func(step string)) error {
	url := s.server.URL("postgres")
	if err := migrate.Up(ctx, url, schema); err != nil {
		return err
	}
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return err
	}
	config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec // as the command line does
	if s.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return err
	}
	s.ops = ops.New(s.pool, schema)
	told(fmt.Sprintf("making %d waiting and %d failed messages", z.waiting, z.failed))
	for i, queue := range queues {
		if _, err := s.ops.Queues.Create(ctx, queue); err != nil {
			return err
		}
		n := z.waiting / len(queues)
		if i == 0 {
			n += z.waiting % len(queues)
		}
		_, err := s.pool.Exec(ctx, fmt.Sprintf(`
			INSERT INTO sqlq.q_%s (id, sent_at, type, headers, body)
			SELECT gen_random_uuid(), now() - n * interval '1 millisecond', 'sales.PlaceOrder', '{"tenant":"north"}',
				convert_to(format('{"order":%%s,"note":"%%s"}', n, repeat('x', 170)), 'UTF8')
			FROM generate_series($1::bigint, 1, -1) n`, queue), n)
		if err != nil {
			return fmt.Errorf("fill queue %s: %w", queue, err)
		}
	}
	// Over two days, the last of them now: a group belongs to a queue and one of four types of it. A fifth of the groups are
	// timeouts.
	_, err = s.pool.Exec(ctx, `
		INSERT INTO sqlq.error (id, queue, endpoint, host, type, headers, body, attempts, sent_at, first_failed_at, failed_at,
			error_type, message, chain, fingerprint)
		SELECT gen_random_uuid(), queue, queue, 'host-' || n % 5, queue || '.Type' || g % 4, '{"tenant":"north"}',
			convert_to(format('{"order":%s,"note":"%s"}', n, repeat('x', 170)), 'UTF8'), CASE WHEN n % 1000 = 0 THEN 3 ELSE 7 END, at - interval '1 minute', at - interval '30 seconds', at,
			'*net.OpError', format(CASE WHEN g % 5 = 0 THEN 'call %s of order %s: timeout after 5s' ELSE 'call %s of order %s: connection refused' END, g, n),
			ARRAY['*fmt.wrapError: call', '*net.OpError: connection'], 'group-' || g
		FROM (
			SELECT n, n % $2::int AS g, ($3::text[])[1 + n % $2::int % 3] AS queue,
				now() - ($1::bigint - n) * interval '2 days' / $1::bigint AS at
			FROM generate_series(1, $1::bigint) n
		) f`, z.failed, groups, queues)
	if err != nil {
		return fmt.Errorf("fill the error table: %w", err)
	}
	_, err = s.pool.Exec(ctx, `VACUUM ANALYZE`) // as autovacuum would have by the time somebody looks
	return err
}
