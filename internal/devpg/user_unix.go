//go:build unix

package devpg

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is the user that the server runs as. The zero value is the user of this process. PostgreSQL refuses to run as
// root, so for root it is another user.
type account struct {
	name string // "" for the user of this process
	uid  uint32
	gid  uint32
}

// serverAccount picks the account: for root the user who called sudo, else the user postgres, else the user nobody.
func serverAccount(getenv func(string) string) (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	if id := getenv("SUDO_UID"); id != "" && id != "0" {
		if u, err := user.LookupId(id); err == nil {
			return newAccount(u)
		}
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil && u.Uid != "0" {
			return newAccount(u)
		}
	}
	return account{}, fmt.Errorf("PostgreSQL does not run as root, and there is no user postgres or nobody to run it as: " +
		"run this as an ordinary user, or add a user postgres")
}

func newAccount(u *user.User) (account, error) {
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return account{}, fmt.Errorf("user %s: %w", u.Username, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return account{}, fmt.Errorf("user %s: %w", u.Username, err)
	}
	return account{name: u.Username, uid: uint32(uid), gid: uint32(gid)}, nil
}

// isOther reports whether the account is another user than this process's.
func (a account) isOther() bool { return a.name != "" }

// run makes the command run as the account, with only the account's own group, and outside the working
// directory of this process, which the account may not be able to enter.
func (a account) run(cmd *exec.Cmd) {
	cmd.Dir = "/"
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if a.isOther() {
		// No Groups and NoSetGroups false: root's supplementary groups are dropped.
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	}
}

// own gives an open file to the account.
func (a account) own(f *os.File) error {
	if !a.isOther() {
		return nil
	}
	return f.Chown(int(a.uid), int(a.gid))
}

// ownIn gives the file, or folder, at a path in root to the account.
func (a account) ownIn(root *os.Root, path string) error {
	if !a.isOther() {
		return nil
	}
	return root.Lchown(path, int(a.uid), int(a.gid))
}

// owns reports whether the file belongs to the account or to the user of this process.
func (a account) owns(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && (stat.Uid == uint32(os.Geteuid()) || a.isOther() && stat.Uid == a.uid)
}

// canUse reports whether the account may enter the folder and, if it needs to write, create files there. The error means
// that the account cannot even run a program.
func (a account) canUse(dir string, write bool) (bool, error) {
	test := `test -x "$0"`
	if write {
		test += ` && test -w "$0"`
	}
	cmd := exec.Command("/bin/sh", "-c", test, dir)
	cmd.Env = serverEnv(os.Getenv)
	a.run(cmd)
	err := cmd.Run()
	if _, ended := err.(*exec.ExitError); err != nil && !ended {
		if a.isOther() {
			return false, fmt.Errorf("run a program as user %s, since PostgreSQL does not run as root: %w; "+
				"run this as an ordinary user", a.name, err)
		}
		return false, fmt.Errorf("run /bin/sh, which sqlq needs to start PostgreSQL: %w", err)
	}
	return err == nil, nil
}

// folderRoot returns the directory in which folders are created: the temporary directory, or /tmp if the name of that is too
// long for a socket, or the account cannot reach it. If it may be in memory, that comes first.
func folderRoot(as account, inMemory bool) (string, error) {
	const name = "/" + folderPrefix + "4294967295/.s.PGSQL.5432" // as long as it can get, see os.MkdirTemp
	temp, err := filepath.Abs(os.TempDir())
	if err != nil {
		return "", err
	}
	try := []string{temp, "/tmp"}
	if dir := memoryRoot(); inMemory && dir != "" {
		try = append([]string{dir}, try...)
	}
	for _, dir := range try {
		if len(dir)+len(name) > maxSocketPath {
			continue
		}
		ok, err := as.canUse(dir, true)
		if err != nil {
			return "", err
		}
		if ok {
			return dir, nil
		}
	}
	whose := ""
	if as.isOther() {
		whose = " for user " + as.name
	}
	return "", fmt.Errorf("no temporary directory for the server: %s and /tmp are not writable%s, or their names are too long "+
		"for a socket; set TMPDIR to one that is", temp, whose)
}
