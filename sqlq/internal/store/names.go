package store

// What the operators' SQL, in package query of ops, names and quotes in the same way.

// Table returns the quoted, qualified name of a table or function of the schema.
func (s *Schema) Table(name string) string { return s.table(name) }

// ReadyTable returns the quoted, qualified name of a queue's table of ready messages.
func (s *Schema) ReadyTable(queue string) string { return s.ready(queue) }

// Asleep is an SQL expression: the channel to notify when a receiver of the queue sleeps, else null. See asleep.
func (s *Schema) Asleep(queue string) string { return s.asleep(queue) }

// Arrived is an SQL expression: the highest number that messages of a queue were given. The role needs the right to read that.
func (s *Schema) Arrived(queue string) string { return s.arrived(queue) }

// Quote returns a string as an SQL literal. See quote.
func Quote(v string) string { return quote(v) }

// WithHeaders is an SQL expression: a json column of headers with some more. See withHeaders.
func WithHeaders(column, added string) string { return withHeaders(column, added) }

// Soon is how close a due time must be for the movers to be told: they look by themselves once a second.
const Soon = soon
