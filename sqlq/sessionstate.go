package sqlq

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// HandleTx handlers that follow one another on a receive connection must not meet what another has changed beyond rows. Only
// ROLLBACK TO takes a SET LOCAL back, RELEASE does not, and what is not LOCAL outlasts the transaction. So:
//
//   - The text of a statement tells most of it (statement.touches). Such a message has a transaction of its own, at the end of
//     which the settings are put back, and its connection is left if anything else remains.
//   - What functions and triggers do shows in no text. At the end of each batch the state of the session is compared with that
//     before its first handler, in the same round trip. A batch that has changed it is rolled back and its messages run one
//     by one, and then the message type is known.

// watchedSettings are looked at after each batch: those that decide what a statement may do, sees and means, in the order in which
// they are put back.
var watchedSettings = []string{
	"session_authorization", "role", "search_path", "session_replication_role", "row_security", "lock_timeout", "statement_timeout",
	"idle_in_transaction_session_timeout", "transaction_timeout", "default_transaction_read_only", "default_transaction_isolation",
	"default_transaction_deferrable", "synchronous_commit", "datestyle", "intervalstyle", "timezone", "client_encoding",
	"standard_conforming_strings", "bytea_output", "extra_float_digits", "check_function_bodies", "default_tablespace", "work_mem",
}

const (
	lockTimeout    = "lock_timeout"
	maxSettings    = 64 // that are watched
	thoroughFirst  = 2  // batches of each instance are looked at thoroughly,
	thoroughEvery  = 1000
	laterLockLimit = "1ms" // lock_timeout of the second and later handlers of a batch
)

// customSetting is the name of a setting that the server does not know, like app.tenant. pg_settings does not list them.
var customSetting = regexp.MustCompile(`^[a-z_][a-z0-9_$]*(\.[a-z_][a-z0-9_$]*)+$`)

// watched are the settings that are looked at, with the expressions that look, by store.Look.
type watched struct {
	names []string
	state [store.Looks]string
	front [store.Looks]string // statements that make the handlers' planner settings, and look
}

// settingNames learns which custom settings handlers use.
type settingNames struct {
	mu    sync.Mutex
	now   atomic.Pointer[watched]
	asked atomic.Bool // what functions set
}

func (n *settingNames) watched() *watched {
	if w := n.now.Load(); w != nil {
		return w
	}
	n.learn(nil)
	return n.now.Load()
}

// learn adds names; those that are not custom settings it leaves out.
func (n *settingNames) learn(names []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	w := &watched{names: watchedSettings}
	if was := n.now.Load(); was != nil {
		w.names = was.names
	}
	w.names = slices.Clone(w.names)
	for _, name := range names {
		if name = strings.ToLower(name); customSetting.MatchString(name) && len(w.names) < maxSettings && !slices.Contains(w.names, name) {
			w.names = append(w.names, name)
		}
	}
	for look := range w.state {
		w.state[look] = store.SessionState(w.names, store.Look(look))
		w.front[look] = session.SetPlans + ", " + w.state[look]
	}
	n.now.Store(w)
}

// learnSettings asks the database once which custom settings its functions set. Without an answer those stay unknown.
func (l *link) learnSettings() {
	if slices.ContainsFunc(l.run.instances.now(), func(in *instance) bool { return in.hasTx }) {
		ctx, cancel := l.timeout()
		defer cancel()
		l.run.client.settings.ask(ctx, l.run.client, l.conn)
	}
}

// ask asks the database, unless it has answered.
func (n *settingNames) ask(ctx context.Context, c *Client, db store.DBTX) {
	if n.asked.Load() {
		return
	}
	names, err := c.store.Sessions.SettingsInFunctions(ctx, db)
	if err != nil {
		c.log.Debug("sqlq: cannot read which settings the functions of the database make", "err", err)
	}
	n.learn(names)
	n.asked.Store(ctx.Err() == nil)
}

// changed returns the names of what differs between two states.
func (w *watched) changed(before, after string) (names []string) {
	was, is := strings.Split(before, store.StateSeparator), strings.Split(after, store.StateSeparator)
	for i := range min(len(was), len(is)) {
		switch {
		case was[i] == is[i]:
		case i < len(w.names):
			names = append(names, w.names[i])
		case i == len(w.names):
			names = append(names, "temporary objects")
		}
	}
	return names
}

// expected is the state of a session after handlers that have changed nothing; limited says that lock_timeout was set.
func (w *watched) expected(before string, limited bool) string {
	if !limited {
		return before
	}
	values := strings.Split(before, store.StateSeparator)
	if i := slices.Index(w.names, lockTimeout); i < len(values) {
		values[i] = laterLockLimit
	}
	return strings.Join(values, store.StateSeparator)
}

// queueRestore puts the watched settings back as they were, to outlast the transaction: what a handler has SET without LOCAL would.
func (w *watched) queueRestore(b *pgx.Batch, before string, pooled bool) {
	values := strings.Split(before, store.StateSeparator)
	if len(values) <= len(w.names) {
		return // nobody has looked
	}
	names, values := w.names, values[:len(w.names)]
	if i := slices.Index(names, "idle_in_transaction_session_timeout"); pooled && i >= 0 { // LOCAL, of the library
		names, values = slices.Delete(slices.Clone(names), i, i+1), slices.Delete(slices.Clone(values), i, i+1)
	}
	store.RestoreSettings(b, names, values)
}

// solos says which HandleTx messages of an instance have transactions of their own. mu guards all of it; it is one of the last in
// the order of locks.
type solos struct {
	mu         ranked[ofPart]
	apartUntil map[string]time.Time // message types whose HandleTx handlers change the session
	alone      map[ID]struct{}      // messages that are to have a transaction of their own when they come again
	batches    int                  // with HandleTx handlers
	one        int                  // so many messages are to be received one at a time, after an error that named no culprit
}

func newSolos() solos {
	return solos{apartUntil: map[string]time.Time{}, alone: map[ID]struct{}{}}
}

// howToLook says how much of the session is looked at around a batch that begins with a delivery, and whether that is to have the
// transaction to itself.
func (s *solos) howToLook(first *delivery) (how store.Look, alone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, alone = s.alone[first.ID]
	s.batches++
	switch {
	case time.Now().Before(s.apartUntil[first.Type]):
		return store.LookWhole, alone
	case alone || s.batches <= thoroughFirst || s.batches%thoroughEvery == 0:
		return store.LookThorough, alone
	}
	return store.LookQuick, false
}

// apartFor is how long messages of a type whose handlers change the session have transactions of their own.
const apartFor = 10 * time.Minute

// learnApart has messages of a type run in transactions of their own from now on.
func (s *solos) learnApart(messageType string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.apartUntil) > mostRemembered { // Endpoint.Otherwise gets any number of types
		clear(s.apartUntil)
	}
	s.apartUntil[messageType] = time.Now().Add(apartFor)
}

func (s *solos) isApart(messageType string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.apartUntil) > 0 && time.Now().Before(s.apartUntil[messageType])
}

// goAlone has messages run each in a transaction of its own when they come again; wentAlone forgets that.
func (s *solos) goAlone(ds ...*delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range ds {
		if len(s.alone) > mostRemembered {
			clear(s.alone)
		}
		s.alone[d.stored.id] = struct{}{}
		s.one++
	}
}

func (s *solos) wentAlone(d *delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.alone, d.stored.id)
}

// isAlone reports whether a message is to have a transaction of its own.
func (s *solos) isAlone(d *delivery) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, alone := s.alone[d.stored.id]
	return alone
}

// mayJoin says whether a message may run behind others in their transaction.
func (s *solos) mayJoin(d *delivery) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.alone) > 0 {
		if _, first := s.alone[d.stored.id]; first {
			return false
		}
	}
	if len(s.apartUntil) == 0 {
		return true
	}
	return !time.Now().Before(s.apartUntil[d.stored.messageType])
}

// oneNext has the next fetches bring one message each: while messages have transactions of their own, what else a fetch brings
// would only be freed again.
func (s *solos) oneNext() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.one = max(s.one, 2)
}

// isOneNext reports whether the next fetch is to bring one message.
func (s *solos) isOneNext() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.one > 0
}

// came notes how many messages a fetch brought.
func (s *solos) came(messages int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.one = max(0, s.one-messages)
}

// leaves says whether more of the session than settings may be left behind the transaction, which is looked at when it has ended.
func (tx *receiveTx) leaves() bool {
	return tx.replace || tx.known || tx.touched
}

// mayLackRole reports whether a settle may have been refused because a function of the handler's has changed the role: the server
// is asked that only where a transaction is looked at thoroughly, before it settles.
func (tx *receiveTx) mayLackRole(refusal error) bool {
	return tx.look <= store.LookTemporary && session.State(refusal) == session.InsufficientPrivilege
}

// noteChange learns, after the commit of a transaction with one handler in it, whether that has changed the session without its
// text saying so. One with several would have failed.
func (tx *receiveTx) noteChange() {
	if tx.workers > 1 && !tx.conn.Pooled && !tx.leaves() {
		tx.conn.seen, tx.conn.state = tx.watched.state[tx.look], tx.before
	}
	if tx.workers != 1 || tx.after == "" || tx.touched {
		return
	}
	expected := tx.watched.expected(tx.before, tx.limited)
	if tx.after == expected {
		return
	}
	if !tx.known {
		tx.in.client.log.Info("sqlq: the handler changes the session, by a function or trigger; its messages have transactions of their own",
			"endpoint", tx.in.endpoint.Name, "type", tx.worker, "changes", tx.watched.changed(expected, tx.after))
	}
	tx.in.solos.learnApart(tx.worker)
}

// leaveSession looks at the session after a transaction whose handlers change it, and closes a connection on which something
// is left that others would meet. Through a transaction pooler the session is another's by now.
func (l *link) leaveSession(tx *receiveTx) {
	if tx == nil || l.conn == nil || l.conn.IsClosed() {
		return
	}
	if !tx.leaves() || l.conn.Pooled {
		return
	}
	if !tx.replace && tx.look == store.LookWhole {
		ctx, cancel := l.timeout()
		defer cancel()
		var now string
		b := &pgx.Batch{}
		store.ReadState(b, tx.watched.state[tx.look], &now)
		if err := l.conn.SendBatch(ctx, b).Close(); err == nil && now == tx.before {
			return
		}
	}
	l.disconnect()
}
