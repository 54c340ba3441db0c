//go:build unix

package devpg

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func TestStartAndStop(t *testing.T) {
	root := tempDir(t)
	o := options(t)
	s := start(t)
	if got := query(t, s.URL("template1"), "SELECT current_database()"); got != "template1" {
		t.Errorf("URL(template1) leads to %s", got)
	}
	if o.Major != 0 && s.Major() != o.Major {
		t.Errorf("SQLQ_TEST_POSTGRES=%d, but the server is %s", o.Major, s.Origin())
	}
	if v := query(t, s.URL(""), "SHOW server_version"); !strings.HasPrefix(v, s.Version()) || s.Major() < 14 {
		t.Errorf("Version() is %s, major %d, and the server's is %s", s.Version(), s.Major(), v)
	}
	for setting, want := range map[string]string{
		"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "listen_addresses": "",
		"max_connections": "200", "max_prepared_transactions": "20", "server_encoding": "UTF8", "lc_collate": "C",
	} {
		sql := "SELECT coalesce(current_setting('" + setting + "', true), 'C')" // lc_collate is not a setting from 16 on
		if got := query(t, s.URL(""), sql); got != want {
			t.Errorf("%s is %s, want %s", setting, got, want)
		}
	}

	var stops sync.WaitGroup
	for range 3 {
		stops.Go(func() {
			if err := s.Stop(); err != nil {
				t.Error(err)
			}
			if !isGone(s.PID()) {
				t.Error("Stop returned before the server had ended")
			}
		})
	}
	stops.Wait()
	select {
	case <-s.Done():
	default:
		t.Error("Done is open after Stop")
	}
	checkEmpty(t, root)
}

func TestOptionsReachTheServer(t *testing.T) {
	tempDir(t)
	s := start(t, func(o *Options) {
		o.Durable = true
		o.tcp = true
		o.Settings = map[string]string{"application_name": `it's a \ test`, "max_connections": "30"}
	})
	if !strings.Contains(s.URL(""), "@127.0.0.1:") {
		t.Errorf("a server on TCP has the URL %s", s.URL(""))
	}
	for setting, want := range map[string]string{
		"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on",
		"max_connections": "30", "listen_addresses": "127.0.0.1",
	} {
		if got := query(t, s.URL("template1"), "SHOW "+setting); got != want {
			t.Errorf("%s is %s, want %s", setting, got, want)
		}
	}
	if got := query(t, s.URL(""), "SELECT boot_val || reset_val FROM pg_settings WHERE name = 'application_name'"); got == "" {
		t.Error("application_name is not set")
	}
	config, err := pgx.ParseConfig(s.URL(""))
	if err != nil {
		t.Fatal(err)
	}
	config.Password = "wrong"
	if conn, err := pgx.ConnectConfig(t.Context(), config); err == nil {
		conn.Close(t.Context())
		t.Error("a server on TCP lets anybody in")
	}
}

func TestInMemory(t *testing.T) {
	root := tempDir(t)
	s := start(t, func(o *Options) { o.InMemory = true })
	want := memoryRoot()
	if want == "" {
		want = root
	}
	if filepath.Dir(s.folder.path) != want {
		t.Errorf("the folder is %s, want it below %s", s.folder.path, want)
	}
}

func TestSeveralStartsAtOnce(t *testing.T) {
	root := tempDir(t)
	var starts sync.WaitGroup
	for range 3 {
		starts.Go(func() {
			s, err := Start(t.Context(), options(t))
			if err != nil {
				t.Error(err)
				return
			}
			if !answers(s.URL("")) {
				t.Error("the server does not answer")
			}
			if err := s.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
	starts.Wait()
	checkEmpty(t, root)
}

func TestStartFails(t *testing.T) {
	root := tempDir(t)
	_, err := Start(t.Context(), options(t, func(o *Options) {
		o.Settings = map[string]string{"shared_buffers": "nonsense"}
	}))
	if err == nil || !strings.Contains(err.Error(), `invalid value for parameter "shared_buffers": "nonsense"`) {
		t.Errorf("the error does not quote the server's log: %v", err)
	}
	_, err = Start(t.Context(), options(t, func(o *Options) {
		o.Settings = map[string]string{"work_mem": "1MB\nfsync = on"}
	}))
	if err == nil || !strings.Contains(err.Error(), "work_mem") {
		t.Errorf("a setting of two lines: %v", err)
	}
	_, err = Start(t.Context(), options(t, func(o *Options) { o.Major = 13 }))
	if err == nil || !strings.Contains(err.Error(), "14 or newer") {
		t.Errorf("version 13: %v", err)
	}
	checkEmpty(t, root)
}

// A start that is cancelled, at whatever point, leaves nothing behind.
func TestStartIsCancelled(t *testing.T) {
	root := tempDir(t)
	o := options(t)
	for _, after := range []time.Duration{0, 30, 60, 100} {
		ctx, cancel := context.WithTimeout(t.Context(), after*time.Millisecond)
		s, err := Start(ctx, o)
		cancel()
		if err == nil { // it was faster
			if err := s.Stop(); err != nil {
				t.Errorf("after %d ms: %v", after, err)
			}
		} else if !errors.Is(err, context.DeadlineExceeded) && after == 0 {
			t.Errorf("after %d ms: %v", after, err)
		}
		checkEmpty(t, root)
	}
}

func TestServerGivenByURL(t *testing.T) {
	tempDir(t)
	own := start(t)
	s, err := Start(t.Context(), Options{URL: own.URL("template1")})
	if err != nil {
		t.Fatal(err)
	}
	if s.Version() != own.Version() || s.PID() != 0 || !strings.Contains(s.Origin(), " at ") {
		t.Errorf("got %s, pid %d", s.Origin(), s.PID())
	}
	if got := query(t, s.URL(""), "SELECT current_database()"); got != "template1" {
		t.Errorf("URL() leads to %s", got)
	}
	if got := query(t, s.URL("postgres"), "SELECT current_database()"); got != "postgres" {
		t.Errorf("URL(postgres) leads to %s", got)
	}
	if err := s.Stop(); err != nil || !answers(own.URL("")) {
		t.Errorf("Stop must leave it alone: %v", err)
	}
	other := 14 + (own.Major()-13)%4
	if _, err := Start(t.Context(), Options{URL: own.URL(""), Major: other}); err == nil ||
		!strings.Contains(err.Error(), fmt.Sprintf("not %d", other)) {
		t.Errorf("wanted version %d: %v", other, err)
	}
	if err := own.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), Options{URL: own.URL("")}); err == nil {
		t.Error("a server that does not answer was accepted")
	}
}

// If a server dies by itself, that is noticed, and Stop still cleans up.
func TestServerDies(t *testing.T) {
	root := tempDir(t)
	s := start(t)
	if err := syscall.Kill(s.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Done():
	case <-time.After(time.Minute):
		t.Fatal("Done is not closed")
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	checkEmpty(t, root)
}
