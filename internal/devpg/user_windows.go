package devpg

import (
	"io/fs"
	"os"
	"os/exec"
)

// account is the user that the server runs as; on Windows always the user of this process. (PostgreSQL refuses to run
// with an administrator's rights there; its log says so.)
type account struct{ name string }

func serverAccount(func(string) string) (account, error) { return account{}, nil }

func (account) isOther() bool                     { return false }
func (account) run(*exec.Cmd)                     {}
func (account) own(*os.File) error                { return nil }
func (account) ownIn(*os.Root, string) error      { return nil }
func (account) owns(fs.FileInfo) bool             { return true }
func (account) canUse(string, bool) (bool, error) { return true, nil }
func folderRoot(account, bool) (string, error)    { return os.TempDir(), nil }
