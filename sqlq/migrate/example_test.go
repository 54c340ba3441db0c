package migrate_test

import (
	"context"
	"fmt"
	"log"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq/migrate"
)

// A service that migrates its own schema when it starts: a second time there is nothing to do.
func Example() {
	ctx := context.Background()
	url, drop := pgtest.Example()
	defer drop()
	config, err := pgx.ParseConfig(url)
	check(err)
	m, err := migrate.New(config, "shop")
	check(err)
	defer m.Close()
	for range 2 {
		steps, err := m.Up(ctx)
		check(err)
		fmt.Println("applied something:", len(steps) > 0)
	}
	differences, err := m.Validate(ctx)
	check(err)
	fmt.Println("as the migrations make it:", len(differences) == 0)
	// Output:
	// applied something: true
	// applied something: false
	// as the migrations make it: true
}

func check(err error) {
	if err != nil {
		log.Panic(err)
	}
}
