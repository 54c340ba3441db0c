package devpg

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// linkList is where a package of PostgreSQL lists the symbolic links that it needs, since npm cannot contain any:
// [{"source": "native/lib/libpq.so.5.18", "target": "native/lib/libpq.so.5"}, …]. The target is the link.
const linkList = "native/pg-symlinks.json"

// unpack unpacks an npm archive into the folder dir, without the archive's top folder, and creates the links that the
// package lacks. Everybody can read everything, whatever the umask.
//
// The archive has been checked before. Nevertheless nothing is written outside dir, nothing is written twice, and no link leads
// outside: names with "..", absolute ones, other kinds of files and such links are refused.
func unpack(archive io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	u := unpacker{root: root}
	if err := u.files(archive); err != nil {
		return err
	}
	if err := u.missingLinks(); err != nil {
		return err
	}
	// Only now that everything is there can we see where links lead that go through other links.
	for _, link := range u.links {
		if _, err := root.Stat(link); err != nil {
			return fmt.Errorf("the link %s leads to nothing in the package: %w", link, err)
		}
	}
	return os.Chmod(dir, 0o755)
}

type unpacker struct {
	root  *os.Root
	links []string
}

func (u *unpacker) files(archive io.Reader) error {
	unzip, err := gzip.NewReader(archive)
	if err != nil {
		return err
	}
	in := tar.NewReader(unzip)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := checkName(h.Name); err != nil {
			return err
		}
		_, name, ok := strings.Cut(strings.TrimSuffix(h.Name, "/"), "/")
		if !ok {
			continue // the top folder itself
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = u.mkdir(name)
		case tar.TypeReg:
			err = u.file(name, h.FileInfo().Mode(), in)
		case tar.TypeSymlink:
			err = u.link(name, h.Linkname)
		default:
			err = fmt.Errorf("%s is neither a file, a folder nor a symbolic link", h.Name)
		}
		if err != nil {
			return err
		}
	}
}

// checkName refuses names that are absolute or contain "..", also as Windows writes them.
func checkName(name string) error {
	slashed := strings.ReplaceAll(name, `\`, "/")
	local := filepath.IsLocal(filepath.FromSlash(name)) && !path.IsAbs(slashed)
	for part := range strings.SplitSeq(slashed, "/") {
		local = local && part != ".."
	}
	if !local {
		return fmt.Errorf("%q leads out of the package", name)
	}
	return nil
}

func (u *unpacker) mkdir(name string) error {
	if err := u.root.MkdirAll(name, 0o755); err != nil {
		return err
	}
	for ; name != "."; name = path.Dir(name) {
		if err := u.root.Chmod(name, 0o755); err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacker) file(name string, mode fs.FileMode, content io.Reader) error {
	if mode&0o111 != 0 {
		mode = 0o755
	} else {
		mode = 0o644
	}
	if err := u.mkdir(path.Dir(name)); err != nil {
		return err
	}
	out, err := u.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, content)
	return errors.Join(err, out.Chmod(mode), out.Close())
}

// link creates the symbolic link name, which points to to. Where that leads is checked at the end.
func (u *unpacker) link(name, to string) error {
	if path.IsAbs(to) || filepath.IsAbs(to) || checkName(path.Join(path.Dir(name), to)) != nil {
		return fmt.Errorf("the link %s leads out of the package, to %s", name, to)
	}
	if err := u.mkdir(path.Dir(name)); err != nil {
		return err
	}
	if err := u.root.Symlink(filepath.FromSlash(to), name); err != nil {
		return err
	}
	u.links = append(u.links, name)
	return nil
}

// missingLinks creates the links in the package's own list.
func (u *unpacker) missingLinks() error {
	text, err := u.root.ReadFile(linkList)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var list []struct{ Source, Target string }
	if err := json.Unmarshal(text, &list); err != nil {
		return fmt.Errorf("%s: %w", linkList, err)
	}
	for _, l := range list {
		if err := errors.Join(checkName(l.Source), checkName(l.Target)); err != nil {
			return fmt.Errorf("%s: %w", linkList, err)
		}
		if _, err := u.root.Lstat(l.Target); err == nil {
			continue
		}
		to, err := filepath.Rel(path.Dir(l.Target), l.Source)
		if err != nil {
			return fmt.Errorf("%s: %w", linkList, err)
		}
		if err := u.link(l.Target, filepath.ToSlash(to)); err != nil {
			return err
		}
	}
	return nil
}
