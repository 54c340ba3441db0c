module github.com/sqlq/sqlq/bench/peers

go 1.26.0

require (
	github.com/ThreeDotsLabs/watermill v1.5.3
	github.com/ThreeDotsLabs/watermill-sql/v4 v4.1.5
	github.com/jackc/pgx/v5 v5.12.0
	github.com/rabbitmq/amqp091-go v1.16.0
	github.com/riverqueue/river v0.51.0
	github.com/riverqueue/river/riverdriver/riverpgxv5 v0.51.0
	github.com/sqlq/sqlq v0.0.0
	github.com/vgarvardt/gue/v5 v5.7.1
)

replace github.com/sqlq/sqlq => ../..
