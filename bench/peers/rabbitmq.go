package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func rabbitSubjects() []subject {
	tuned := "Durable queue, persistent messages, publisher confirms; a batch is published and then its confirms awaited. " +
		"One consumer, prefetch 1,000, one acknowledgement for up to 500 messages, at the latest after 5 ms. A throw-away " +
		"broker beside the database, its files on the same disk."
	contract := "At least once. A broker beside the database: what is sent is in no transaction of the database, so that an " +
		"outbox is needed where sqlq's is the transaction itself. Batched acknowledgements: after a crash up to 1,000 " +
		"messages come again. An acknowledgement is not confirmed. "
	one := func(key, title, kind, rest string) subject {
		return subject{
			key:      key,
			title:    title,
			version:  "of the installed server; client amqp091-go " + moduleVersion("github.com/rabbitmq/amqp091-go"),
			rows:     []row{rowDrain, rowSend16, rowSendMany, rowP50, rowP99},
			make:     func() system { return &rabbitSystem{kind: kind} },
			tuned:    tuned,
			contract: contract + rest,
			available: func(ctx context.Context, l *rig) (err error) {
				if l.broker == nil {
					l.broker, err = startBroker(ctx, l)
				}
				return err
			},
		}
	}
	return []subject{
		one("rabbitmq_classic", "RabbitMQ, classic queue", "classic", "No WAL of the database."),
		one("rabbitmq_quorum", "RabbitMQ, quorum queue", "quorum", "A quorum of one, as there is one node. No WAL of the database."),
	}
}

// broker is a RabbitMQ server that keeps everything in a folder of its own.
type broker struct {
	url     string
	process *process
}

// findBroker returns the script that starts the server. Debian's script in the PATH insists on a user and on folders; the one
// that it wraps takes everything from the environment.
func findBroker() (string, error) {
	found, err := exec.LookPath("rabbitmq-server")
	if err != nil {
		return "", fmt.Errorf("%w: rabbitmq-server is not installed", errNotHere)
	}
	const wrapped = "/usr/lib/rabbitmq/bin/rabbitmq-server"
	if _, err := os.Stat(wrapped); err == nil {
		return wrapped, nil
	}
	return found, nil
}

// startBroker starts the server on free ports of 127.0.0.1 and returns when it accepts connections.
func startBroker(ctx context.Context, l *rig) (*broker, error) {
	script, err := findBroker()
	if err != nil {
		return nil, err
	}
	l.say("start RabbitMQ")
	dir, err := l.folder("rabbitmq")
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	files := map[string]string{
		"rabbitmq.conf":     fmt.Sprintf("listeners.tcp.1 = 127.0.0.1:%d\ndisk_free_limit.absolute = 100MB\n", ports[0]),
		"rabbitmq-env.conf": "",
		"advanced.config":   "[].\n",
		"enabled_plugins":   "[].\n",
	}
	for name, text := range files {
		if err := os.WriteFile(in(name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	env := []string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + dir, // for the Erlang cookie
		"LANG=C.UTF-8",
		"RABBITMQ_NODENAME=sqlqpeers@localhost",
		"RABBITMQ_CONF_ENV_FILE=" + in("rabbitmq-env.conf"),
		"RABBITMQ_CONFIG_FILE=" + in("rabbitmq.conf"),
		"RABBITMQ_ADVANCED_CONFIG_FILE=" + in("advanced.config"),
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + in("enabled_plugins"),
		"RABBITMQ_MNESIA_BASE=" + in("mnesia"),
		"RABBITMQ_LOG_BASE=" + in("log"),
		"RABBITMQ_PID_FILE=" + in("pid"),
		"RABBITMQ_GENERATED_CONFIG_DIR=" + in("generated"),
		"RABBITMQ_FEATURE_FLAGS_FILE=" + in("feature_flags"),
		"RABBITMQ_DIST_PORT=" + strconv.Itoa(ports[1]),
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}",
		"ERL_EPMD_ADDRESS=127.0.0.1",
		"ERL_EPMD_PORT=" + strconv.Itoa(ports[2]),
	}
	// Erlang's port mapper would stay behind as a daemon. One that is started before, in our process group, ends with the group.
	const both = `if command -v epmd >/dev/null; then epmd & fi; exec "$0"`
	p, err := guarded(dir, filepath.Join(l.temp, "rabbitmq.log"), env, "/bin/sh", "-c", both, script)
	if err != nil {
		return nil, err
	}
	b := &broker{url: fmt.Sprintf("amqp://guest:guest@127.0.0.1:%d/", ports[0]), process: p}
	if err := b.ready(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start RabbitMQ: %w%s", err, p.said()), p.stop())
	}
	return b, nil
}

func (b *broker) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	for {
		conn, err := amqp.Dial(b.url)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-b.process.ended:
			return errors.New("it ended at once")
		case <-ctx.Done():
			return fmt.Errorf("it accepts no connection: %w", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (b *broker) stop() error { return b.process.stop() }

// freePorts returns ports of 127.0.0.1 that are free at this moment.
func freePorts(n int) (ports []int, err error) {
	for range n {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer listener.Close()
		ports = append(ports, listener.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

type rabbitSystem struct {
	kind string

	url      string
	queue    string
	conn     *amqp.Connection
	channels chan *amqp.Channel // in confirm mode, for one sender at a time
	control  *amqp.Channel
}

func (r *rabbitSystem) open(_ context.Context, at place) (err error) {
	r.url = at.rig.broker.url
	r.queue = fmt.Sprintf("orders-%d", at.rig.databases)
	if r.conn, err = amqp.Dial(r.url); err != nil {
		return err
	}
	if r.control, err = r.conn.Channel(); err != nil {
		return err
	}
	if _, err := r.declare(r.control.QueueDeclare); err != nil {
		return err
	}
	r.channels = make(chan *amqp.Channel, sendConns)
	for range sendConns {
		ch, err := r.conn.Channel()
		if err != nil {
			return err
		}
		if err := ch.Confirm(false); err != nil {
			return err
		}
		r.channels <- ch
	}
	return nil
}

// declare creates the queue, or inspects it.
func (r *rabbitSystem) declare(how func(name string, durable, autoDelete, exclusive, noWait bool, args amqp.Table) (amqp.Queue, error)) (amqp.Queue, error) {
	return how(r.queue, true, false, false, false, amqp.Table{"x-queue-type": r.kind})
}

func (r *rabbitSystem) send(ctx context.Context, o Order) error { return r.sendMany(ctx, []Order{o}) }

func (r *rabbitSystem) sendMany(ctx context.Context, os []Order) error {
	ch := <-r.channels
	defer func() { r.channels <- ch }()
	confirms := make([]*amqp.DeferredConfirmation, len(os))
	for i, o := range os {
		var err error
		confirms[i], err = ch.PublishWithDeferredConfirmWithContext(ctx, "", r.queue, false, false, amqp.Publishing{
			ContentType: "application/json", DeliveryMode: amqp.Persistent, Body: encode(o),
		})
		if err != nil {
			return err
		}
	}
	for _, c := range confirms {
		acked, err := c.WaitContext(ctx)
		if err == nil && !acked {
			err = errors.New("the broker refused a message")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *rabbitSystem) receive(ctx context.Context, in *inbox) (func(context.Context) error, error) {
	const (
		prefetch = 1_000
		ackEvery = 500
		ackAfter = 5 * time.Millisecond
	)
	conn, err := amqp.Dial(r.url)
	if err != nil {
		return nil, err
	}
	ch, err := conn.Channel()
	var deliveries <-chan amqp.Delivery
	if err == nil {
		err = ch.Qos(prefetch, 0, false)
	}
	if err == nil {
		deliveries, err = ch.Consume(r.queue, "peers", false, false, false, false, nil)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}

	var handler sync.WaitGroup
	handler.Go(func() {
		late := time.NewTicker(ackAfter)
		defer late.Stop()
		var last uint64
		waiting := 0
		ack := func() {
			if waiting == 0 {
				return
			}
			if err := ch.Ack(last, true); err != nil {
				in.fail(err)
			}
			waiting = 0
		}
		for {
			select {
			case d, more := <-deliveries:
				if !more {
					ack()
					return
				}
				var o Order
				if err := json.Unmarshal(d.Body, &o); err != nil {
					in.fail(err)
					return
				}
				in.handled(o.ID, time.Now())
				last = d.DeliveryTag
				if waiting++; waiting == ackEvery {
					ack()
				}
			case <-late.C:
				ack()
			}
		}
	})
	return func(context.Context) error {
		err := ch.Cancel("peers", false) // what was delivered is still handled; then the deliveries end
		handler.Wait()
		// The broker answers when it has processed the acknowledgements before it.
		return errors.Join(err, ch.Close(), conn.Close())
	}, nil
}

func (r *rabbitSystem) left(context.Context) (int, error) {
	q, err := r.declare(r.control.QueueDeclarePassive)
	return q.Messages, err
}

func (r *rabbitSystem) close() {
	if r.control != nil {
		_, _ = r.control.QueueDelete(r.queue, false, false, false) // the broker is thrown away anyway
	}
	if r.conn != nil {
		r.conn.Close()
	}
}
