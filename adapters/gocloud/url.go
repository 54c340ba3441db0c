package sqlqpubsub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"gocloud.dev/pubsub"

	"github.com/sqlq/sqlq/sqlq"
)

// Scheme is the scheme of the URLs that URLOpener opens.
const Scheme = "sqlq"

func init() {
	o := &defaultOpener{}
	pubsub.DefaultURLMux().RegisterTopic(Scheme, o)
	pubsub.DefaultURLMux().RegisterSubscription(Scheme, o)
}

// URLOpener opens URLs of topics and subscriptions.
//
// A topic is sqlq://TYPE, for example sqlq://orders.placed: it publishes events of this type. Host and path together are the type. A type with a
// colon is written behind a third slash: sqlq:///shop:OrderPlaced. Parameters:
//   - queue: sends the messages as commands to this queue instead (TopicOptions.Queue)
//   - content_type: what bodies are, by default application/octet-stream (TopicOptions.ContentType)
//   - allow_no_subscriber=true: it is no error if no queue is subscribed (TopicOptions.AllowNoSubscriber)
//
// A subscription is sqlq://QUEUE, for example sqlq://billing?topic=orders.placed. Parameters:
//   - topic: creates the queue if it is missing, and subscribes it to this topic; may be given several times (SubscriptionOptions.Topics)
//   - nack_delay: how long a nacked message waits, as in 1s or 0s (SubscriptionOptions.NackDelay)
//   - fail_on_nack=true: a Nack is a failed attempt (SubscriptionOptions.FailOnNack)
//
// The opener that the package registers has a Client of its own, made when the first URL is opened, for all URLs of the process. Its database
// is $SQLQ_DATABASE_URL, or $DATABASE_URL, or what the variables PGHOST, PGDATABASE and so on say; its schema is $SQLQ_SCHEMA, or sqlq.
// Programs that have a Client already register their own opener under another scheme, or call OpenTopicURL and OpenSubscriptionURL.
type URLOpener struct {
	// Client is used for all topics and subscriptions. It must be set.
	Client *sqlq.Client
	// TopicOptions are the defaults for topics.
	TopicOptions TopicOptions
	// SubscriptionOptions are the defaults for subscriptions.
	SubscriptionOptions SubscriptionOptions
}

// OpenTopicURL implements pubsub.TopicURLOpener.
func (o *URLOpener) OpenTopicURL(_ context.Context, u *url.URL) (*pubsub.Topic, error) {
	options := o.TopicOptions
	err := parameters(u.Query(), map[string]func(values []string) error{
		"queue":               last(func(v string) error { options.Queue = v; return nil }),
		"content_type":        last(func(v string) error { options.ContentType = v; return nil }),
		"allow_no_subscriber": last(flag(&options.AllowNoSubscriber)),
	})
	if err != nil {
		return nil, fmt.Errorf("open topic %v: %w", u, err)
	}
	return OpenTopic(o.Client, nameOf(u), &options)
}

// OpenSubscriptionURL implements pubsub.SubscriptionURLOpener.
func (o *URLOpener) OpenSubscriptionURL(ctx context.Context, u *url.URL) (*pubsub.Subscription, error) {
	options := o.SubscriptionOptions
	err := parameters(u.Query(), map[string]func(values []string) error{
		"topic": func(values []string) error { options.Topics = values; return nil },
		"nack_delay": last(func(v string) (err error) {
			options.NackDelay, err = time.ParseDuration(v)
			if err == nil && options.NackDelay == 0 {
				options.NackDelay = -1 // none
			}
			return err
		}),
		"fail_on_nack": last(flag(&options.FailOnNack)),
	})
	if err != nil {
		return nil, fmt.Errorf("open subscription %v: %w", u, err)
	}
	return OpenSubscription(ctx, o.Client, nameOf(u), &options)
}

// nameOf returns the type or queue that a URL names.
func nameOf(u *url.URL) string { return strings.TrimPrefix(path.Join(u.Host, u.Path), "/") }

// parameters gives the values of each parameter to its func, and complains about parameters that have none.
func parameters(query url.Values, known map[string]func(values []string) error) error {
	for name, values := range query {
		set := known[name]
		if set == nil {
			return fmt.Errorf("unknown parameter %q", name)
		}
		if err := set(values); err != nil {
			return fmt.Errorf("parameter %q: %w", name, err)
		}
	}
	return nil
}

// last makes a func of the last value of a parameter.
func last(set func(value string) error) func(values []string) error {
	return func(values []string) error { return set(values[len(values)-1]) }
}

// flag returns a func that reads true or false.
func flag(into *bool) func(value string) error {
	return func(value string) error {
		*into = value == "true"
		if !*into && value != "false" {
			return errors.New("it must be true or false")
		}
		return nil
	}
}

// defaultOpener is the URLOpener of the database in the environment, made when it is used.
type defaultOpener struct {
	mu     sync.Mutex
	opener *URLOpener
}

func (o *defaultOpener) OpenTopicURL(ctx context.Context, u *url.URL) (*pubsub.Topic, error) {
	opener, err := o.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("open topic %v: %w", u, err)
	}
	return opener.OpenTopicURL(ctx, u)
}

func (o *defaultOpener) OpenSubscriptionURL(ctx context.Context, u *url.URL) (*pubsub.Subscription, error) {
	opener, err := o.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("open subscription %v: %w", u, err)
	}
	return opener.OpenSubscriptionURL(ctx, u)
}

func (o *defaultOpener) open(ctx context.Context) (*URLOpener, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.opener != nil {
		return o.opener, nil
	}
	// The pool must not end with ctx, which is that of one call.
	pool, err := pgxpool.New(context.WithoutCancel(ctx), cmp.Or(os.Getenv("SQLQ_DATABASE_URL"), os.Getenv("DATABASE_URL")))
	if err != nil {
		return nil, err
	}
	client, err := sqlq.Open(ctx, pool, sqlq.Config{Schema: os.Getenv("SQLQ_SCHEMA")})
	if err != nil {
		pool.Close()
		return nil, err
	}
	o.opener = &URLOpener{Client: client}
	return o.opener, nil
}
