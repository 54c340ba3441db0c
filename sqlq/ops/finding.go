package ops

import (
	"context"
	"slices"
	"strings"
)

// Severity says how bad a finding is.
type Severity string

const (
	SeverityProblem Severity = "problem" // something does not work, or will stop working
	SeverityWarning Severity = "warning" // it works, worse than it could, or something needs looking at
	SeverityNote    Severity = "note"    // worth knowing; nothing is wrong
)

// Subject is what a finding is about, for programs: what has the same Code and Subject as before is the same matter, however its
// text and severity have changed. The zero value is the database as a whole.
type Subject struct {
	Kind string `json:"kind"` // "queue", "table", "role", … as FindingKind.Subjects lists them
	Name string `json:"name"` // a queue's or a role's as it is called, an instance's number, a session's process id
}

// Finding is something that Doctor found.
type Finding struct {
	Severity Severity // how bad it is; one code can come with several
	Code     string   // which kind of finding it is, one of FindingKinds; it stays the same from release to release
	Subject  Subject  // what it is about
	What     string   // what is the case, with names and numbers
	Why      string   // why that matters
	Fix      string   // the command that fixes it, or what to do; "": nothing needs doing
	SQL      bool     // Fix is SQL
	Fixable  bool     // Doctor.Fix can do it
	Fixed    string   // what Doctor.Fix did; "": nothing yet
	WouldFix bool     // Doctor.PreviewFix says that Doctor.Fix would do it

	apply   func(ctx context.Context) (did string, err error)
	fixName string // findings that the same call fixes have the same
}

// MarshalJSON writes the finding as sqlq doctor -o json does; a finding about the database as a whole has no subject.
func (f Finding) MarshalJSON() ([]byte, error) {
	var subject *Subject
	if f.Subject != (Subject{}) {
		subject = &f.Subject
	}
	return encode(struct {
		Severity Severity `json:"severity"`
		Code     string   `json:"code"`
		Subject  *Subject `json:"subject,omitempty"`
		What     string   `json:"what"`
		Why      string   `json:"why"`
		Fix      string   `json:"fix,omitempty"`
		SQL      bool     `json:"fix_is_sql,omitempty"`
		Fixable  bool     `json:"fixable"`
		Fixed    string   `json:"fixed,omitempty"`
		WouldFix bool     `json:"would_fix,omitempty"`
	}{f.Severity, f.Code, subject, f.What, f.Why, f.Fix, f.SQL, f.Fixable, f.Fixed, f.WouldFix})
}

// ofTable is a table as a subject: the queue, where it is a queue's.
func ofTable(table string) Subject {
	if queue, is := strings.CutPrefix(table, "q_"); is {
		return Subject{"queue", queue}
	}
	return Subject{"table", table}
}

func problem(k FindingKind, of Subject, what, why, fix string) Finding {
	return Finding{Severity: SeverityProblem, Code: k.Code, Subject: of, What: what, Why: why, Fix: fix}
}

func warning(k FindingKind, of Subject, what, why, fix string) Finding {
	return Finding{Severity: SeverityWarning, Code: k.Code, Subject: of, What: what, Why: why, Fix: fix}
}

func note(k FindingKind, of Subject, what, why, fix string) Finding {
	return Finding{Severity: SeverityNote, Code: k.Code, Subject: of, What: what, Why: why, Fix: fix}
}

// inSQL marks the fix of a finding as SQL.
func (f Finding) inSQL() Finding {
	f.SQL = true
	return f
}

// by says how Doctor.Fix fixes a finding, where the role may. Findings that one call fixes together have the same name.
func (f Finding) by(may bool, name string, fix func(ctx context.Context) (did string, err error)) Finding {
	f.Fixable, f.fixName, f.apply = may, name, fix
	return f
}

// FindingKind is a kind of finding: what a code means.
type FindingKind struct {
	Code     string   // lower-case words with hyphens
	Check    string   // the check that finds it, one of CheckNames
	Subjects []string // the Subject.Kind that its findings can have; none: they are about the database as a whole
	Means    string   // what is the case, in a line
}

// FindingKinds returns all kinds of findings, in the order of the checks that find them.
func FindingKinds() []FindingKind { return slices.Clone(findingKinds) }

var findingKinds []FindingKind

// declare makes a kind of finding known. A finding is made of what it returns, so that there is none whose code is not declared.
func declare(check, code, means string, subjects ...string) FindingKind {
	k := FindingKind{code, check, subjects, means}
	findingKinds = append(findingKinds, k)
	return k
}

// The kinds of findings. Alerts and dashboards go by the codes: one that was released is never renamed, and never used for something else.
var (
	foundServerOld      = declare("server", "server-old", "the server is older than what sqlq needs")
	foundServerUntested = declare("server", "server-untested", "the server is newer than what this release was tested with")
	foundServerStandby  = declare("server", "server-standby", "the server is a standby: nothing can be sent or handled")
	foundServerReadOnly = declare("server", "server-read-only", "transactions are read-only by default", "setting")

	foundPoolerBetween = declare("pooler", "pooler-between", "a transaction pooler stands between this program and the database")

	foundListenRefused    = declare("listen", "listen-refused", "no connection to listen on could be opened")
	foundNotificationLost = declare("listen", "notification-lost", "a notification did not arrive")

	foundConnectionsFew = declare("connections", "connections-few", "few connections, or none, are left under a limit", "limit")

	foundLockSleeperHeld = declare("locks", "lock-sleeper-held", "a stranger has the lock by which instances of a queue sleep", "queue")
	foundLockWatchHeld   = declare("locks", "lock-watch-held", "a stranger has the lock by which an instance watches a queue", "queue")
	foundLockLeaderHeld  = declare("locks", "lock-leader-held", "a stranger has the lock of the leading process")
	foundLockAliveHeld   = declare("locks", "lock-alive-held", "a stranger has the lock by which a process shows that it lives", "process")
	foundLockQueuesHeld  = declare("locks", "lock-queues-held", "a stranger has the lock of making and dropping queues and of granting")

	foundSchemaMissing  = declare("migrations", "schema-missing", "the schema has no sqlq tables")
	foundSchemaOld      = declare("migrations", "schema-old", "the schema is older than this program")
	foundSchemaNew      = declare("migrations", "schema-new", "the schema is newer than this program")
	foundFunctionsStray = declare("migrations", "functions-stray", "functions look for their tables in another schema", "search path")

	foundRoleWithoutPart     = declare("grants", "role-without-part", "the role may do nothing in the schema", "role")
	foundProducerLacksRights = declare("grants", "producer-lacks-rights", "the role lacks what a producer needs", "role")
	foundConsumerLacksRights = declare("grants", "consumer-lacks-rights", "the role lacks what a consumer needs", "role")
	foundOperatorLacksRights = declare("grants", "operator-lacks-rights", "the role lacks what an operator needs", "role")
	foundViewerLacksRights   = declare("grants", "viewer-lacks-rights", "the role lacks what a viewer needs", "role")
	foundRoleOfSomeQueues    = declare("grants", "role-of-some-queues", "the role may work with some of the queues only", "role")

	foundRowSecurityOff          = declare("row security", "row-security-off", "row security of a table is off: a role sees the messages of all queues", "table", "queue")
	foundRowSecurityOn           = declare("row security", "row-security-on", "row security of a table is on that should have none: its messages can be hidden", "table", "queue")
	foundRowSecurityForced       = declare("row security", "row-security-forced", "row security of a table binds its owner too", "table", "queue")
	foundOwnerDiffers            = declare("row security", "owner-differs", "a table belongs to another role than the others do", "table", "queue")
	foundRoleSuperuser           = declare("row security", "role-superuser", "the role is a superuser: nothing limits it", "role")
	foundRoleBypassesRowSecurity = declare("row security", "role-bypasses-row-security", "the role has BYPASSRLS: it sees the messages of all queues", "role")

	foundInstanceSilent   = declare("instances", "instance-silent", "an instance has crashed or is cut off, and nobody has noticed", "instance")
	foundInstancesCrashed = declare("instances", "instances-crashed", "instances of an endpoint crashed within a day", "endpoint")
	foundVersionsDiffer   = declare("instances", "versions-differ", "an endpoint runs in several versions", "endpoint")

	foundLeasesOfDroppedQueue = declare("leases", "leases-of-dropped-queue", "messages are leased by instances that are gone, of a queue that is gone", "queue")
	foundLeasesOrphaned       = declare("leases", "leases-orphaned", "messages are leased by instances that are gone", "queue")

	foundDelayedOverdue = declare("delayed", "delayed-overdue", "delayed messages are due, and nobody moves them", "queue")

	foundBacklogUnhandled = declare("backlog", "backlog-unhandled", "messages wait, and no instance of the endpoint runs", "queue")

	foundInboxBlocked    = declare("inbox", "inbox-blocked", "ids of handled messages are not forgotten: somebody has the tables", "inbox")
	foundInboxNotEmptied = declare("inbox", "inbox-not-emptied", "ids of handled messages are not forgotten: nobody does it", "inbox")

	foundQueuePaused = declare("paused", "queue-paused", "a queue is paused", "queue")

	foundErrorTableLarge = declare("errors", "error-table-large", "the error table is large", "table")
	foundFailuresMany    = declare("errors", "failures-many", "many messages failed within an hour")

	foundTransactionLong     = declare("transactions", "transaction-long", "a transaction has been open for long", "session")
	foundTransactionPrepared = declare("transactions", "transaction-prepared", "a prepared transaction has been waiting for long", "prepared transaction")
	foundStandbyHoldsRows    = declare("transactions", "standby-holds-rows", "a standby holds vacuum back", "standby")
	foundSlotUnusedHoldsRows = declare("transactions", "slot-unused-holds-rows", "a replication slot that nobody uses holds vacuum back", "slot")
	foundSlotHoldsRows       = declare("transactions", "slot-holds-rows", "a replication slot holds vacuum back", "slot")
	foundSlotKeepsWAL        = declare("transactions", "slot-keeps-wal", "a replication slot that nobody uses keeps much WAL", "slot")
	foundSessionsUnseen      = declare("transactions", "sessions-unseen", "the role cannot see others' sessions", "role")

	foundDeadRowsMany = declare("dead rows", "dead-rows-many", "a table has many dead rows", "table", "queue")

	foundTableBloated = declare("bloat", "table-bloated", "much of a table is empty", "table", "queue")

	foundAutovacuumOff          = declare("autovacuum", "autovacuum-off", "autovacuum, or what it needs, is off on the server")
	foundAutovacuumSettingsLost = declare("autovacuum", "autovacuum-settings-lost", "a table has lost its settings for autovacuum", "table", "queue")

	foundTransactionsUnfrozen = declare("wraparound", "transactions-unfrozen", "a table has rows of very old transactions", "table", "queue")
	foundMultixactsUnfrozen   = declare("wraparound", "multixacts-unfrozen", "a table has rows of very old multixacts", "table", "queue")
	foundSequenceUsedUp       = declare("wraparound", "sequence-used-up", "most numbers of a sequence have been given out", "sequence")

	foundSequenceBehind = declare("sequences", "sequence-behind", "a sequence will give out numbers that rows have", "table", "queue")

	foundIndexInvalid  = declare("indexes", "index-invalid", "an index is not valid", "index")
	foundIndexLeftOver = declare("indexes", "index-left-over", "an index is left over from a REINDEX that did not end", "index")
)
