package migrate

import "time"

const Catalogue, Described = catalogue, described

// SetPatience sets how long a Migrator waits for a second connection.
func (m *Migrator) SetPatience(d time.Duration) { m.patience = d }
