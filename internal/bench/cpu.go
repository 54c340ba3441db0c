package bench

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// accounting reads what processor time a server's processes have used from Linux's own accounting in /proc.
type accounting struct {
	postmaster int
}

// findAccounting returns nil unless the server's processes can be seen here.
func findAccounting(ctx context.Context, pool *pgxpool.Pool) *accounting {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return nil
	}
	defer conn.Release()
	var pid int
	var database string
	if err := conn.QueryRow(ctx, `SELECT pg_backend_pid(), current_database()`).Scan(&pid, &database); err != nil {
		return nil
	}
	// The process of that number may be another machine's, or another container's. Ours says whom it serves.
	title, err := os.ReadFile(procFile(pid, "cmdline"))
	if err != nil || !bytes.HasPrefix(title, []byte("postgres:")) || !strings.Contains(string(title), " "+database+" ") {
		return nil
	}
	stat, ok := readStat(pid)
	if !ok {
		return nil
	}
	return &accounting{postmaster: stat.parent}
}

// usage is processor time by process id. 0 stands for the postmaster with its children that have ended.
type usage map[int]time.Duration

// read returns nothing where the processes cannot be seen.
func (a *accounting) read() usage {
	u := usage{}
	if a == nil {
		return u
	}
	entries, _ := filepath.Glob("/proc/[0-9]*")
	for _, entry := range entries {
		pid, err := strconv.Atoi(filepath.Base(entry))
		if err != nil {
			continue
		}
		stat, ok := readStat(pid)
		switch {
		case !ok:
		case pid == a.postmaster:
			u[0] = stat.used + stat.children
		case stat.parent == a.postmaster:
			u[pid] = processTime(pid, stat)
		}
	}
	return u
}

// since returns what was used since an earlier reading, in all and by role.
func (u usage) since(earlier usage, roles map[int]string) (total time.Duration, byRole map[string]time.Duration) {
	byRole = map[string]time.Duration{}
	for pid, used := range u {
		d := used - earlier[pid]
		role := roles[pid]
		if role == "" {
			role = "other"
		}
		byRole[role] += d
		total += d
	}
	for pid, used := range earlier {
		if _, lives := u[pid]; !lives {
			total -= used // it has ended, and all that it used is the postmaster's by now
			byRole["other"] -= used
		}
	}
	return total, byRole
}

// ownTime is the processor time of this process; 0 where the system does not say.
func ownTime() time.Duration {
	stat, _ := readStat(os.Getpid())
	return stat.used
}

type procStat struct {
	parent         int
	used, children time.Duration // children: those that have ended
}

func procFile(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}

// readStat reads /proc/<pid>/stat: see proc_pid_stat(5).
func readStat(pid int) (s procStat, ok bool) {
	text, err := os.ReadFile(procFile(pid, "stat"))
	if err != nil {
		return s, false
	}
	// The second field is the program's name in parentheses, in which anything may stand.
	_, after, _ := strings.Cut(string(text[bytes.LastIndexByte(text, ')')+1:]), " ")
	fields := strings.Fields(after)
	if len(fields) < 15 {
		return s, false
	}
	number := func(i int) int64 { n, _ := strconv.ParseInt(fields[i], 10, 64); return n }
	const tick = time.Second / 100 // USER_HZ, of all that Go runs on
	return procStat{
		parent:   int(number(1)),
		used:     time.Duration(number(11)+number(12)) * tick,
		children: time.Duration(number(13)+number(14)) * tick,
	}, true
}

// processTime is more exact than the ticks of stat, where the kernel has it.
func processTime(pid int, stat procStat) time.Duration {
	// The first number is the time on the processor in nanoseconds, of the first thread: PostgreSQL's processes have one.
	text, err := os.ReadFile(procFile(pid, "schedstat"))
	if err != nil {
		return stat.used
	}
	first, _, _ := strings.Cut(string(text), " ")
	ns, err := strconv.ParseInt(first, 10, 64)
	if err != nil || ns == 0 {
		return stat.used
	}
	return time.Duration(ns)
}

// peakMemory is the most memory that this process has had, in bytes, the program's own pages included; 0 where the
// system does not say. (getrusage would count what the parent had before the program was started.)
func peakMemory() int64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, "VmHWM:"); found {
			kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kib << 10
		}
	}
	return 0
}
