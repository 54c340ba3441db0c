//go:build unix

package devpg

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The server, and everything in its folder, belongs to the account: another user, without additional groups, if
// root runs the test.
func TestServerAccount(t *testing.T) {
	tempDir(t)
	s := start(t)
	uid := os.Geteuid()
	if uid == 0 {
		as, err := serverAccount(os.Getenv)
		if err != nil || as.uid == 0 {
			t.Fatalf("the account for root is %+v, %v", as, err)
		}
		uid = int(as.uid)
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID())); err == nil {
			for line := range strings.Lines(string(text)) {
				if groups, ok := strings.CutPrefix(line, "Groups:"); ok && strings.TrimSpace(groups) != "" {
					t.Errorf("the server has the supplementary groups %s", groups)
				}
			}
		}
	}
	out, err := exec.Command("ps", "-o", "uid=", "-p", fmt.Sprint(s.PID())).Output()
	if got := strings.TrimSpace(string(out)); err != nil || got != fmt.Sprint(uid) {
		t.Errorf("the server runs as user %s (%v), want %d", got, err, uid)
	}
	err = filepath.Walk(s.folder.path, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Sys().(*syscall.Stat_t).Uid != uint32(uid) {
			t.Errorf("%s belongs to user %d, want %d", path, info.Sys().(*syscall.Stat_t).Uid, uid)
		}
		return nil // files come and go in a running server's folder
	})
	if err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(s.folder.path); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("others can enter the folder: %v, %v", info.Mode(), err)
	}
}

func TestAccountForRoot(t *testing.T) {
	env := map[string]string{"SUDO_UID": "65534"}
	as, err := serverAccount(func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	if root := os.Geteuid() == 0; as.isOther() != root || root && as.uid == 0 {
		t.Errorf("the account is %+v", as)
	}
}
